import { expect, test } from '@jest/globals'
import { type Figure, missed, percentile, table } from './stats.ts'

const figure = (more: Partial<Figure> = {}): Figure => ({ name: 'start', samples: [4, 1, 3, 2], ...more })

test('a percentile is the nearest rank: a sample that was measured, never one between two', () => {
  const hundred = Array.from({ length: 100 }, (_, i) => 100 - i)
  expect([50, 90, 95, 99, 100].map((p) => percentile(hundred, p))).toEqual([50, 90, 95, 99, 100])
  expect([1, 50, 51, 100].map((p) => percentile([20, 10], p))).toEqual([10, 10, 20, 20])
  expect(percentile([7], 99)).toBe(7)
  expect(percentile([], 50)).toBeNaN()
})

test('a time misses its reach above the bound, a rate below it', () => {
  expect(missed(figure({ reach: { p50: 2, p99: 4 } }))).toEqual([])
  expect(missed(figure({ reach: { p50: 1.5, p95: 3, max: 4 } }))).toEqual(['p50 2.00 > 1.5', 'p95 4.00 > 3'])
  expect(missed(figure({ unit: 'per second', reach: { p50: 2 } }))).toEqual([])
  expect(missed(figure({ unit: 'per second', reach: { p50: 2.5 } }))).toEqual(['p50 2.00 < 2.5'])
})

test('the table shows ratios of medians, for times only, and a dash for what was not measured', () => {
  const rates = figure({ name: 'rate', unit: 'per second', samples: [120], reach: { p50: 100 } })
  const text = table([figure({ reach: { p50: 1 } }), rates], { httpAndSql: 1, floor: 8, cold: null })
  expect(text.split('\n').map((line) => line.split(/\s{2,}/))).toEqual([
    ['figure', 'unit', 'n', 'p50', 'p90', 'p95', 'p99', 'max', '/ http+sql', '/ floor', '/ cold', 'reach'],
    [expect.stringMatching(/^─+$/)],
    ['start', 'ms', '4', '2.00', '4.00', '4.00', '4.00', '4.00', '2.0×', '0.25×', '–', 'p50 ≤ 1 ✗'],
    ['rate', 'per second', '1', '120', '120', '120', '120', '120', 'p50 ≥ 100 ✓'],
  ])
})

test('what is cold may differ from figure to figure: its ratio is to the one it names', () => {
  const cold = figure({ name: 'cold', samples: [8], cold: 'cold' })
  const rows = table([cold, figure({ cold: 'cold' }), figure({ cold: 'none' })], {
    httpAndSql: null,
    floor: null,
    cold: 1,
  }).split('\n')
  expect(rows.slice(2).map((row) => row.trim().split(/\s+/).at(-1))).toEqual(['1.0×', '0.25×', '–'])
})
