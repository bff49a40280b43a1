import { describe, expect, test } from '@jest/globals'
import { agent, ago, backingOff, healthy, now } from '../test/pool/demands.ts'
import { erlangB } from './demand.ts'
import { isEligible, shares } from './pool.ts'
import type { AgentDemand } from './pool.ts'

describe('who takes part in the division', () => {
  test.each<[string, Partial<AgentDemand>, boolean]>([
    ['one used within the window', {}, true],
    ['not one out of the window', { recent: false }, false],
    ['not one that was deleted', { deleted: true }, false],
    ['not one that backs off', { health: backingOff() }, false],
    ['one whose back-off is over', { health: backingOff({ backoffUntil: now }) }, true],
    [
      'one with an open breaker, for its probe',
      { health: backingOff({ backoffUntil: ago(1), breakerOpen: true }) },
      true,
    ],
  ])('%s', (_, over, eligible) => {
    expect(isEligible(agent('a', over), now)).toBe(eligible)
  })
})

describe('the division of one budget', () => {
  const divide = (agents: AgentDemand[], budget: number): Record<string, number> =>
    Object.fromEntries(shares(agents, budget, now))

  test.each<[string, AgentDemand[], number, Record<string, number>]>([
    ['nobody there: nothing', [], 6, {}],
    ['one agent alone gets all of it', [agent('a')], 6, { a: 6 }],
    ['one busy agent alone gets all of it', [agent('a', { perHour: 6 })], 6, { a: 6 }],
    ['a budget of 0 is nobody’s', [agent('a'), agent('b')], 0, { a: 0, b: 0 }],
    [
      'one each comes first, however unequal the demand',
      [agent('busy', { perHour: 1_000 }), agent('quiet', { lastSessionAt: ago(80_000) })],
      2,
      { busy: 1, quiet: 1 },
    ],
    [
      'while it lasts, the most recently used come first',
      [
        agent('old', { lastSessionAt: ago(300), perHour: 50 }),
        agent('new', { lastSessionAt: ago(1) }),
        agent('mid', { lastSessionAt: ago(20) }),
      ],
      2,
      { old: 0, new: 1, mid: 1 },
    ],
    [
      'the rest goes where the demand is',
      [agent('busy', { perHour: 30 }), agent('quiet', { lastSessionAt: ago(1) })],
      6,
      { busy: 5, quiet: 1 },
    ],
    [
      'twice the arrivals, more of the rest',
      [agent('a', { perHour: 400 }), agent('b', { perHour: 200 })],
      9,
      { a: 5, b: 4 },
    ],
    [
      'a template that takes longer to start gets more',
      [agent('slow', { perHour: 60, leadTimeMs: 60_000 }), agent('quick', { perHour: 60, leadTimeMs: 2_000 })],
      5,
      { slow: 4, quick: 1 },
    ],
    ['equal demand is shared equally', [agent('a', { perHour: 9 }), agent('b', { perHour: 9 })], 6, { a: 3, b: 3 }],
    [
      'quiet agents are served in turn, the most recent first',
      [agent('a', { lastSessionAt: ago(9) }), agent('b', { lastSessionAt: ago(1) })],
      5,
      { a: 2, b: 3 },
    ],
    [
      'agents that are not eligible get none, and are in the answer',
      [
        agent('gone', { deleted: true }),
        agent('past', { recent: false }),
        agent('ill', { health: backingOff() }),
        agent('well'),
      ],
      4,
      { gone: 0, past: 0, ill: 0, well: 4 },
    ],
    [
      'an open breaker gets one probe, and the others the rest',
      [
        agent('broken', { perHour: 500, health: backingOff({ backoffUntil: ago(1), breakerOpen: true }) }),
        agent('well', { lastSessionAt: ago(900) }),
      ],
      4,
      { broken: 1, well: 3 },
    ],
    [
      'an open breaker alone gets one probe and no more',
      [agent('broken', { perHour: 500, health: backingOff({ backoffUntil: ago(1), breakerOpen: true }) })],
      4,
      { broken: 1 },
    ],
    [
      'used at the same moment: by id, so that every look divides alike',
      [agent('b'), agent('a'), agent('c')],
      2,
      { a: 1, b: 1, c: 0 },
    ],
    [
      'a place stays where it is for a small difference',
      [agent('a', { perHour: 10, held: 2 }), agent('b', { perHour: 11, held: 1 })],
      3,
      { a: 2, b: 1 },
    ],
    [
      'and moves for a large one',
      [agent('a', { perHour: 10, held: 2 }), agent('b', { perHour: 20, held: 1 })],
      3,
      { a: 1, b: 2 },
    ],
    [
      'a place that became free by a claim goes where it is worth most',
      [agent('a', { perHour: 10, held: 1 }), agent('b', { perHour: 11, held: 1 })],
      3,
      { a: 1, b: 2 },
    ],
    [
      'what an agent has is no claim to the first place of another',
      [agent('a', { perHour: 10, held: 4 }), agent('b')],
      4,
      { a: 3, b: 1 },
    ],
    ['never used counts as long ago', [agent('never', { lastSessionAt: null }), agent('a')], 1, { never: 0, a: 1 }],
  ])('%s', (_, agents, budget, expected) => {
    expect(divide(agents, budget)).toEqual(expected)
    expect(divide(agents.toReversed(), budget)).toEqual(expected)
  })

  test('never exceeds the budget, and leaves nothing of it while a healthy agent is there', () => {
    const crowd = Array.from({ length: 12 }, (_, i) =>
      agent(`agent-${i}`, {
        perHour: (i * 37) % 11,
        leadTimeMs: 1_000 + ((i * 7_919) % 30_000),
        lastSessionAt: ago(i * 13),
        recent: i % 5 !== 4,
        health: i % 4 === 3 ? backingOff({ backoffUntil: ago(1), breakerOpen: true }) : healthy,
      }),
    )
    for (let budget = 0; budget <= 40; budget++) {
      const given = [...shares(crowd, budget, now).values()]
      expect(given.reduce((a, b) => a + b, 0)).toBe(budget)
    }
  })

  test('saves at least as many misses as any other division that gives everyone one', () => {
    const agents = [
      agent('a', { perHour: 400 }),
      agent('b', { perHour: 200 }),
      agent('c', { perHour: 90, leadTimeMs: 40_000 }),
    ]
    const missesOf = (sizes: number[]): number =>
      agents.reduce((sum, { perHour, leadTimeMs }, i) => {
        return sum + perHour * erlangB(sizes[i]!, (perHour * leadTimeMs) / 3_600_000)
      }, 0)
    for (const budget of [3, 6, 11]) {
      const given = divide(agents, budget)
      const misses = missesOf(['a', 'b', 'c'].map((id) => given[id]!))
      for (let a = 1; a <= budget - 2; a++)
        for (let b = 1; a + b <= budget - 1; b++)
          expect(misses).toBeLessThanOrEqual(missesOf([a, b, budget - a - b]) + 1e-9)
    }
  })

  test('does not change its mind while lead times waver', () => {
    let seed = 7
    const random = (): number => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647
    const held: Record<string, number> = { a: 0, b: 0, c: 0 }
    let moves = 0
    for (let look = 0; look < 200; look++) {
      const agents = ['a', 'b', 'c'].map((id, i) =>
        agent(id, { perHour: 20, leadTimeMs: 1_500 + 200 * random(), lastSessionAt: ago(i), held: held[id]! }),
      )
      const given = divide(agents, 5)
      if (look > 0) moves += ['a', 'b', 'c'].filter((id) => given[id] !== held[id]).length
      Object.assign(held, given)
    }
    expect(moves).toBe(0)
  })

  test('a larger budget takes from nobody', () => {
    const agents = [agent('a', { perHour: 40 }), agent('b', { perHour: 3 }), agent('c', { lastSessionAt: ago(5) })]
    for (let budget = 0; budget < 30; budget++) {
      const [less, more] = [divide(agents, budget), divide(agents, budget + 1)]
      for (const id of ['a', 'b', 'c']) expect(more[id]).toBeGreaterThanOrEqual(less[id] ?? 0)
    }
  })

  test('a division of hundreds over hundreds takes no noticeable time', () => {
    const agents = Array.from({ length: 300 }, (_, i) =>
      agent(`agent-${i}`, { perHour: i % 40, lastSessionAt: ago(i) }),
    )
    const start = performance.now()
    shares(agents, 600, now)
    expect(performance.now() - start).toBeLessThan(2_000)
  })
})
