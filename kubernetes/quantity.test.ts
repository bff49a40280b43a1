import { expect, test } from '@jest/globals'
import { parseQuantity, percentOf, requestsOf, resourcesOf } from './quantity.ts'

test.each([
  ['0', 0],
  ['2', 2],
  ['250m', 0.25],
  ['0.1', 0.1],
  ['.5', 0.5],
  ['1.', 1],
  ['100u', 1e-4],
  ['5n', 5e-9],
  ['1k', 1_000],
  ['1.5G', 1.5e9],
  ['1.5Gi', 1.5 * 2 ** 30],
  ['512Mi', 512 * 2 ** 20],
  ['64Ki', 65_536],
  ['1Ti', 2 ** 40],
  ['12E', 12e18],
  ['1Ei', 2 ** 60],
  ['12e6', 12e6],
  ['1E3', 1_000],
  ['1e-3', 0.001],
  ['+1', 1],
  ['-1', -1],
])('%s is %d', (text, value) => {
  expect(parseQuantity(text)).toBeCloseTo(value, 12)
})

test.each(['', 'x', '1KiB', '1 Gi', '1K', '1e', 'Gi', '--1', '1.2.3', '1mm'])('%j is no quantity', (text) => {
  expect(parseQuantity(text)).toBeNull()
})

test('cores become thousandths, rounded up as the scheduler does, without the noise of floating point', () => {
  expect(resourcesOf({ cpu: '0.1', memory: '1e3' })).toEqual({ cpu_millicores: 100, memory_bytes: 1_000 })
  expect(resourcesOf({ cpu: '1500u', memory: '1500m' })).toEqual({ cpu_millicores: 2, memory_bytes: 2 })
  expect(resourcesOf({ cpu: '4.35' })).toEqual({ cpu_millicores: 4_350, memory_bytes: 0 })
  expect(resourcesOf(undefined)).toEqual({ cpu_millicores: 0, memory_bytes: 0 })
})

const asks = (cpu: string, more: object = {}) => ({ resources: { requests: { cpu } }, ...more })

test('a pod asks for its containers together, or for its largest init container, and for its runtime', () => {
  expect(requestsOf({ containers: [asks('1'), asks('500m'), {}] }).cpu_millicores).toBe(1_500)
  expect(requestsOf({ containers: [asks('1')], initContainers: [asks('2'), asks('3')] }).cpu_millicores).toBe(3_000)
  expect(requestsOf({ containers: [asks('1')], overhead: { cpu: '250m' } }).cpu_millicores).toBe(1_250)
  expect(requestsOf(undefined).cpu_millicores).toBe(0)
})

test('a sidecar counts beside what comes after it', () => {
  const sidecar = asks('1', { restartPolicy: 'Always' })
  expect(requestsOf({ containers: [asks('1')], initContainers: [sidecar] }).cpu_millicores).toBe(2_000)
  expect(requestsOf({ containers: [asks('1')], initContainers: [sidecar, asks('3')] }).cpu_millicores).toBe(4_000)
  expect(requestsOf({ containers: [asks('1')], initContainers: [asks('3'), sidecar] }).cpu_millicores).toBe(3_000)
})

test('shares are whole per cent, and nothing of nothing is 0', () => {
  const whole = { cpu_millicores: 4_000, memory_bytes: 0 }
  expect(percentOf({ cpu_millicores: 6_100, memory_bytes: 5 }, whole)).toEqual({ cpu: 153, memory: 0 })
})
