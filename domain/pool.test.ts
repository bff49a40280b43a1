import { describe, expect, test } from '@jest/globals'
import { agent, ago, backingOff, now } from '../test/pool/demands.ts'
import { poolBackoffFirstMs, poolBackoffMaxMs, poolCheckMs } from './limits.ts'
import { backoff, plan } from './pool.ts'
import type { PooledSandbox, PoolObservation } from './pool.ts'

const HASH = 'current'
const warm = (id: string, over: Partial<PooledSandbox> = {}): PooledSandbox => ({
  id,
  state: 'warm',
  templateHash: HASH,
  createdAt: ago(120),
  readyAt: ago(100),
  retiring: false,
  ...over,
})
const starting = (id: string, over: Partial<PooledSandbox> = {}): PooledSandbox =>
  warm(id, { state: 'provisioning', createdAt: ago(3), readyAt: null, ...over })

const observed = (over: Partial<PoolObservation> = {}): PoolObservation => ({
  share: 2,
  budget: 4,
  agent: agent('a'),
  templateHash: HASH,
  ttlMs: 1_800_000,
  sandboxes: [],
  wantedElsewhere: 0,
  ...over,
})
const OLD = { createdAt: ago(2_000), readyAt: ago(1_900) }

describe('what a pool does', () => {
  type Acts = {
    provision?: number
    replace?: string[]
    retire?: [string, string][]
    decision: string
    finished?: boolean
  }
  test.each<[string, Partial<PoolObservation>, Acts]>([
    ['fills up to its share', {}, { provision: 2, decision: 'start 2' }],
    ['counts what is starting', { sandboxes: [starting('s')] }, { provision: 1, decision: 'start 1' }],
    ['holds when it has its share', { sandboxes: [warm('a'), starting('b')] }, { decision: 'hold' }],
    [
      'gives up those that are still starting before warm ones, the youngest first',
      {
        share: 1,
        sandboxes: [warm('w'), starting('older', { createdAt: ago(9) }), starting('younger', { createdAt: ago(2) })],
      },
      {
        retire: [
          ['younger', 'surplus'],
          ['older', 'surplus'],
        ],
        decision: 'retire 2 (surplus)',
      },
    ],
    [
      'gives up the oldest of several warm ones',
      { share: 1, sandboxes: [warm('young', { readyAt: ago(10) }), warm('old', { readyAt: ago(90) })] },
      { retire: [['old', 'surplus']], decision: 'retire 1 (surplus)' },
    ],
    [
      'replaces what is of an older template at once, warm or starting',
      { sandboxes: [warm('a', { templateHash: 'before' }), starting('b', { templateHash: 'before' })] },
      {
        provision: 2,
        retire: [
          ['a', 'drift'],
          ['b', 'drift'],
        ],
        decision: 'start 2, retire 2 (drift)',
      },
    ],
    [
      'starts a replacement of what is past its time to live, and keeps it meanwhile',
      { share: 1, sandboxes: [warm('a', OLD)] },
      { replace: ['a'], decision: 'replace 1' },
    ],
    [
      'replaces one at a time, the oldest first',
      { sandboxes: [warm('a', OLD), warm('b', { ...OLD, readyAt: ago(1_950) })] },
      { replace: ['b'], decision: 'replace 1' },
    ],
    [
      'keeps the old one while its replacement starts',
      { share: 1, sandboxes: [warm('old', { ...OLD, retiring: true }), starting('new')] },
      { decision: 'hold' },
    ],
    [
      'replaces no second one while a replacement starts',
      { sandboxes: [warm('first', { ...OLD, retiring: true }), warm('second', OLD), starting('new')] },
      { decision: 'hold' },
    ],
    [
      'retires the old one once its replacement is warm',
      { share: 1, sandboxes: [warm('old', { ...OLD, retiring: true }), warm('new', { readyAt: ago(0) })] },
      { retire: [['old', 'ttl']], decision: 'retire 1 (ttl)' },
    ],
    [
      'keeps the old one when its replacement was claimed at once, and starts another',
      { share: 1, sandboxes: [warm('old', { ...OLD, retiring: true })] },
      { provision: 1, decision: 'start 1' },
    ],
    [
      'replaces nothing while it still fills',
      { share: 3, sandboxes: [warm('a', OLD), warm('b')] },
      { provision: 1, decision: 'start 1' },
    ],
    [
      'drains when its share is 0, and is done then',
      { share: 0, agent: agent('a', { recent: false }), sandboxes: [warm('a'), starting('b')] },
      {
        retire: [
          ['b', 'drain'],
          ['a', 'drain'],
        ],
        decision: 'retire 2 (drain)',
        finished: true,
      },
    ],
    [
      'drains one that was being replaced, too',
      {
        share: 0,
        agent: agent('a', { deleted: true }),
        sandboxes: [warm('old', { ...OLD, retiring: true }), warm('w')],
      },
      {
        retire: [
          ['old', 'drain'],
          ['w', 'drain'],
        ],
        decision: 'retire 2 (drain)',
        finished: true,
      },
    ],
    ['ends when it holds nothing and has no share', { share: 0 }, { decision: 'hold', finished: true }],
    [
      'keeps what is warm while its template fails',
      { share: 0, agent: agent('a', { health: backingOff() }), sandboxes: [warm('a'), warm('b')] },
      { decision: 'back off' },
    ],
    [
      'gives what is warm to others that wait for a place while its template fails',
      {
        share: 0,
        agent: agent('a', { health: backingOff() }),
        sandboxes: [warm('a', { readyAt: ago(50) }), warm('b', { readyAt: ago(70) })],
        wantedElsewhere: 1,
      },
      { retire: [['b', 'surplus']], decision: 'retire 1 (surplus)' },
    ],
    [
      'waits while its template fails, and does not end',
      { share: 0, agent: agent('a', { health: backingOff() }) },
      { decision: 'back off' },
    ],
    [
      'drains also while its template fails, when the pool is switched off',
      { share: 0, budget: 0, agent: agent('a', { health: backingOff() }), sandboxes: [warm('a')] },
      { retire: [['a', 'drain']], decision: 'retire 1 (drain)', finished: true },
    ],
    [
      'drains also while its template fails, when nobody used the agent lately',
      { share: 0, agent: agent('a', { recent: false, health: backingOff() }), sandboxes: [warm('a')] },
      { retire: [['a', 'drain']], decision: 'retire 1 (drain)', finished: true },
    ],
    [
      'drains also while its template fails, when the agent is deleted',
      { share: 0, agent: agent('a', { deleted: true, health: backingOff() }), sandboxes: [warm('a')] },
      { retire: [['a', 'drain']], decision: 'retire 1 (drain)', finished: true },
    ],
    [
      'retires what is of an older template also while the template fails',
      {
        share: 0,
        agent: agent('a', { health: backingOff() }),
        sandboxes: [warm('a', { templateHash: 'before' }), warm('b')],
      },
      { retire: [['a', 'drift']], decision: 'retire 1 (drift)' },
    ],
    [
      'starts one at a time after a failure',
      { share: 3, agent: agent('a', { health: backingOff({ backoffUntil: ago(1) }) }) },
      { provision: 1, decision: 'start 1' },
    ],
    [
      'starts no second one after a failure while one starts',
      { share: 3, agent: agent('a', { health: backingOff({ backoffUntil: ago(1) }) }), sandboxes: [starting('s')] },
      { decision: 'hold' },
    ],
    [
      'replaces nothing old while it is not known whether the template starts',
      { share: 1, agent: agent('a', { health: backingOff({ backoffUntil: ago(1) }) }), sandboxes: [warm('a', OLD)] },
      { decision: 'hold' },
    ],
  ])('%s', (_, over, acts) => {
    const made = plan(observed(over), now)
    expect({
      provision: made.provision,
      replace: made.replace,
      retire: made.retire.map(({ id, why }) => [id, why]),
      decision: made.decision,
      finished: made.finished,
    }).toEqual({ provision: 0, replace: [], retire: [], finished: false, ...acts })
  })

  test('never gives up a warm one for its age before another is warm in its place', () => {
    // Plays the whole replacement of two, sandbox by sandbox.
    const sandboxes = [warm('a', OLD), warm('b', { ...OLD, readyAt: ago(1_950) })]
    for (let round = 0; round < 12; round++) {
      const made = plan(observed({ sandboxes }), now)
      for (const id of made.replace) {
        sandboxes.find((one) => one.id === id)!.retiring = true
        sandboxes.push(starting(`for-${id}`))
      }
      for (const { id } of made.retire)
        sandboxes.splice(
          sandboxes.findIndex((one) => one.id === id),
          1,
        )
      expect(sandboxes.filter(({ state }) => state === 'warm').length).toBeGreaterThanOrEqual(2)
      if (made.decision === 'hold') {
        const next = sandboxes.find(({ state }) => state === 'provisioning')
        if (next !== undefined) Object.assign(next, { state: 'warm', readyAt: now })
      }
    }
    expect(sandboxes.map(({ id }) => id).toSorted()).toEqual(['for-a', 'for-b'])
  })
})

describe('when a pool looks again', () => {
  test.each<[string, Partial<PoolObservation>, number]>([
    ['at the latest after the safety net', { sandboxes: [warm('a'), warm('b')] }, poolCheckMs],
    [
      'when the first one reaches its time to live',
      { sandboxes: [warm('a', { readyAt: ago(1_795) }), warm('b', { readyAt: ago(1_790) })] },
      5_000,
    ],
    ['when the back-off is over', { share: 0, agent: agent('a', { health: backingOff() }) }, 8_000],
    ['not at a moment that has passed', { share: 1, sandboxes: [warm('a', OLD)] }, poolCheckMs],
  ])('%s', (_, over, ms) => {
    expect(plan(observed(over), now).nextCheckMs).toBe(ms)
  })
})

describe('the reason that people read', () => {
  test.each<[string, Partial<PoolObservation>, string]>([
    ['its share', { agent: agent('a', { perHour: 4.26 }) }, 'share 2 of 4, 4.3 sessions an hour, 12 s to make one'],
    ['that the agent was deleted', { share: 0, agent: agent('a', { deleted: true }) }, 'the agent was deleted'],
    ['that the pool is off', { share: 0, budget: 0 }, 'the pool is switched off (size 0)'],
    ['that nobody came', { share: 0, agent: agent('a', { recent: false }) }, 'no session within the window'],
    ['that others come first', { share: 0 }, 'other agents were used more recently and take the whole budget of 4'],
    [
      'how long it backs off',
      { share: 0, agent: agent('a', { health: backingOff({ failures: 1 }) }) },
      '1 failed start in a row, waiting until 2026-11-21T09:00:08.000Z',
    ],
    [
      'why its breaker is open',
      {
        share: 0,
        agent: agent('a', {
          health: backingOff({ failures: 7, breakerOpen: true, breakerReason: 'clone_failed: no such repository' }),
        }),
      },
      '7 failed starts in a row, waiting until 2026-11-21T09:00:08.000Z: clone_failed: no such repository',
    ],
    [
      'that it probes',
      {
        share: 1,
        agent: agent('a', {
          health: { failures: 7, backoffUntil: ago(1), breakerOpen: true, breakerReason: 'clone_failed: gone' },
        }),
      },
      'one probe after 7 failed starts: clone_failed: gone',
    ],
  ])('%s', (_, over, reason) => {
    expect(plan(observed(over), now).reason).toBe(reason)
  })
})

describe('the wait after failures in a row', () => {
  test.each([
    [1, 0, poolBackoffFirstMs / 2],
    [1, 1, poolBackoffFirstMs],
    [2, 1, poolBackoffFirstMs * 2],
    [3, 0.5, poolBackoffFirstMs * 3],
    [4, 1, poolBackoffFirstMs * 8],
    [30, 1, poolBackoffMaxMs],
    [100_000, 0, poolBackoffMaxMs / 2],
  ])('%i failures, random %d: %i ms', (failures, random, ms) => {
    expect(backoff(failures, random)).toBe(ms)
  })
})
