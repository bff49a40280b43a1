import { describe, expect, test } from '@jest/globals'
import { erlangB, marginalBenefit } from './demand.ts'

describe('the share of claims that find a pool empty', () => {
  // From printed tables of the Erlang B formula (for instance CCITT Fascicle II.3).
  test.each([
    { size: 1, load: 1, blocked: 0.5 },
    { size: 2, load: 1, blocked: 0.2 },
    { size: 3, load: 1, blocked: 0.0625 },
    { size: 5, load: 2, blocked: 0.036_697 },
    { size: 10, load: 5, blocked: 0.018_385 },
    { size: 100, load: 100, blocked: 0.075_7 },
  ])('is $blocked with $size sandboxes and a load of $load', ({ size, load, blocked }) => {
    expect(erlangB(size, load)).toBeCloseTo(blocked, 5)
  })

  test('is all of them with no sandbox, and none with no load', () => {
    expect(erlangB(0, 3)).toBe(1)
    expect(erlangB(3, 0)).toBe(0)
    expect(erlangB(0, 0)).toBe(0)
  })

  test('equals the formula itself, factorials and all', () => {
    const factorial = (n: number): number => (n <= 1 ? 1 : n * factorial(n - 1))
    for (const load of [0.1, 1, 4.5, 12])
      for (const size of [1, 2, 7, 15]) {
        const terms = Array.from({ length: size + 1 }, (_, n) => load ** n / factorial(n))
        expect(erlangB(size, load)).toBeCloseTo(terms[size]! / terms.reduce((a, b) => a + b), 12)
      }
  })

  test('never grows with the size, and stays a share under any load', () => {
    for (const load of [0.001, 1, 50, 10_000])
      for (let size = 0; size < 60; size++) {
        const [less, more] = [erlangB(size, load), erlangB(size + 1, load)]
        expect(more).toBeLessThanOrEqual(less)
        expect(more).toBeGreaterThanOrEqual(0)
        expect(more).toBeLessThanOrEqual(1)
      }
  })
})

describe('what one more sandbox is worth', () => {
  test('is the misses per hour that it saves', () => {
    // 60 an hour and a minute to make one: a load of 1, so B is 1, 1/2, 1/5, 1/16 …
    const demand = { perHour: 60, leadTimeMs: 60_000 }
    expect(marginalBenefit(0, demand)).toBeCloseTo(30, 6)
    expect(marginalBenefit(1, demand)).toBeCloseTo(18, 6)
    expect(marginalBenefit(2, demand)).toBeCloseTo(60 * (1 / 5 - 1 / 16), 6)
  })

  test('is nothing for an agent that nobody uses', () => {
    expect(marginalBenefit(0, { perHour: 0, leadTimeMs: 12_000 })).toBe(0)
    expect(marginalBenefit(4, { perHour: 0, leadTimeMs: 12_000 })).toBe(0)
  })

  test('is more for a template that takes longer to start', () => {
    const quick = marginalBenefit(1, { perHour: 10, leadTimeMs: 5_000 })
    expect(marginalBenefit(1, { perHour: 10, leadTimeMs: 60_000 })).toBeGreaterThan(quick)
  })

  test('shrinks with each one that is there already', () => {
    const demand = { perHour: 120, leadTimeMs: 30_000 }
    for (let size = 0; size < 20; size++)
      expect(marginalBenefit(size + 1, demand)).toBeLessThanOrEqual(marginalBenefit(size, demand))
  })
})
