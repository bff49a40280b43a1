import { expect, test } from '@jest/globals'
import { percentOf, requestsOf, resourcesOf } from './quantity.ts'

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
