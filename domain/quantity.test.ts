import { expect, test } from '@jest/globals'
import { parseQuantity, withResources } from './quantity.ts'

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

test('an agent says what it wants otherwise, and the rest stays', () => {
  const base = { requests: { cpu: '250m', memory: '512Mi' }, limits: { cpu: '2', memory: '4Gi' } }
  expect(withResources(base, null)).toEqual(base)
  expect(withResources(base, { limits: { memory: '8Gi' }, requests: { cpu: '1', memory: undefined } })).toEqual({
    requests: { cpu: '1', memory: '512Mi' },
    limits: { cpu: '2', memory: '8Gi' },
  })
})
