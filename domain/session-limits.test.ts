import { expect, test } from '@jest/globals'
import { limitReached, noUsage, withTurnUsage } from './session-limits.ts'

const turn = (cost_usd: number | null) => ({
  input_tokens: 10,
  output_tokens: 5,
  cached_tokens: 4,
  requests: 1,
  cost_usd,
})
const none = { max_turns: null, max_cost_usd: null }

test('what turns use adds up; a gateway that tells no cost leaves it unknown, one that tells it sometimes adds what it tells', () => {
  const twice = withTurnUsage(withTurnUsage(noUsage, turn(null)), turn(null))
  expect(twice).toMatchObject({ input_tokens: 20, output_tokens: 10, cached_tokens: 8, requests: 2, cost_usd: null })
  expect(withTurnUsage(withTurnUsage(twice, turn(0.5)), turn(null))).toMatchObject({ requests: 4, cost_usd: 0.5 })
  expect(withTurnUsage(noUsage, null)).toBe(noUsage)
  const earlier = { input_tokens: 1, output_tokens: 2, requests: 3 }
  expect(withTurnUsage(noUsage, earlier)).toEqual({ ...noUsage, ...earlier })
})

test('costs add up as decimal fractions do: 0.7 and 0.1 reach 0.8', () => {
  const { cost_usd } = withTurnUsage(withTurnUsage(noUsage, turn(0.7)), turn(0.1))
  expect(cost_usd).toBe(0.8)
  expect(limitReached({ ...none, max_cost_usd: 0.8 }, { ...noUsage, cost_usd })).toMatchObject({
    limit: 'max_cost_usd',
  })
})

test.each([
  ['no limit', none, { turns: 1e6, cost_usd: 1e6 }, null],
  ['fewer turns than allowed', { ...none, max_turns: 2 }, { turns: 1 }, null],
  ['as many turns as allowed', { ...none, max_turns: 2 }, { turns: 2 }, { limit: 'max_turns', max: 2, used: 2 }],
  ['less cost than allowed', { ...none, max_cost_usd: 1 }, { cost_usd: 0.99 }, null],
  [
    'more cost than allowed',
    { ...none, max_cost_usd: 1 },
    { cost_usd: 1.5 },
    { limit: 'max_cost_usd', max: 1, used: 1.5 },
  ],
  ['no cost told', { ...none, max_cost_usd: 1 }, { turns: 99, cost_usd: null }, null],
])('%s', (_, limits, used, expected) => {
  expect(limitReached(limits, { ...noUsage, ...used })).toEqual(expected)
})
