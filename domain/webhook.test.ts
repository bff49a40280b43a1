import { describe, expect, test } from '@jest/globals'
import { webhookDisableAfterMs, webhookGiveUpMs } from './limits.ts'
import { afterAttempt, parseRetryAfter, TEST_EVENT } from './webhook.ts'
import type { Outcome, Progress } from './webhook.ts'

const SECOND = 1_000
const HOUR = 3_600 * SECOND
const now = Date.parse('2026-11-30T09:00:00Z')

const answered = (statusCode: number, retryAfterMs: number | null = null): Outcome => ({
  result: statusCode < 300 ? 'success' : 'status',
  statusCode,
  error: statusCode < 300 ? null : `answered ${statusCode}`,
  response: null,
  retryAfterMs,
})
const silent: Outcome = { ...answered(500), result: 'timeout', statusCode: null }
const first: Progress = { type: 'turn.finished', tries: 0, elapsedMs: 0, failingMs: null }
/** In the middle of the jitter. */
const step = (outcome: Outcome, over: Partial<Progress> = {}) => afterAttempt(outcome, { ...first, ...over }, 0.5)

describe('what follows from a try', () => {
  test.each<[string, Outcome, Partial<Progress>, ReturnType<typeof afterAttempt>]>([
    ['a 2xx is a success', answered(204), {}, { status: 'delivered' }],
    ['also the last moment', answered(200), { elapsedMs: 30 * HOUR }, { status: 'delivered' }],
    ['a failure comes again after 5 s', answered(500), {}, { status: 'pending', waitMs: 5 * SECOND }],
    ['so does no answer', silent, {}, { status: 'pending', waitMs: 5 * SECOND }],
    ['so does a redirect', answered(302), {}, { status: 'pending', waitMs: 5 * SECOND }],
    ['then after four times as long', answered(500), { tries: 1 }, { status: 'pending', waitMs: 20 * SECOND }],
    ['at most after six hours', answered(500), { tries: 9 }, { status: 'pending', waitMs: 6 * HOUR }],
    ['Retry-After makes it longer', answered(429, 60 * SECOND), {}, { status: 'pending', waitMs: 60 * SECOND }],
    ['and not shorter', answered(503, 0), { tries: 1 }, { status: 'pending', waitMs: 20 * SECOND }],
    [
      'but not longer than it is tried at all',
      answered(429, 999 * HOUR),
      { elapsedMs: HOUR },
      { status: 'pending', waitMs: 23 * HOUR },
    ],
    [
      'the last try is at the end of the 24 hours',
      answered(500),
      { tries: 9, elapsedMs: 23 * HOUR },
      { status: 'pending', waitMs: HOUR },
    ],
    ['and then it has failed', answered(500), { elapsedMs: webhookGiveUpMs }, { status: 'failed', disable: null }],
    ['410 fails at once and disables the webhook', answered(410), {}, { status: 'failed', disable: 'gone' }],
    [
      'one that is given up disables a webhook that has failed for days',
      silent,
      { elapsedMs: webhookGiveUpMs, failingMs: webhookDisableAfterMs },
      { status: 'failed', disable: 'failing' },
    ],
    [
      'and not one that has failed for less',
      silent,
      { elapsedMs: webhookGiveUpMs, failingMs: webhookDisableAfterMs - 1 },
      { status: 'failed', disable: null },
    ],
    [
      'one try does not disable it, however long it has failed',
      silent,
      { failingMs: 9 * webhookDisableAfterMs },
      { status: 'pending', waitMs: 5 * SECOND },
    ],
    ['a test is tried once', answered(500), { type: TEST_EVENT }, { status: 'failed', disable: null }],
    ['and disables nothing', answered(410), { type: TEST_EVENT }, { status: 'failed', disable: null }],
  ])('%s', (_, outcome, progress, expected) => {
    expect(step(outcome, progress)).toEqual(expected)
  })

  test('a delivery that always fails is tried eleven times in 24 hours', () => {
    const times: number[] = []
    for (let elapsedMs = 0, tries = 0; ; tries++) {
      times.push(elapsedMs)
      const next = step(answered(500), { tries, elapsedMs })
      if (next.status !== 'pending') break
      elapsedMs += next.waitMs
    }
    expect(times.length).toBe(11)
    expect(times.at(-1)).toBe(webhookGiveUpMs)
  })

  test('those that failed together come again a little apart', () => {
    const waits = [0, 1].map((random) => afterAttempt(answered(500), { ...first, tries: 1 }, random))
    expect(waits).toEqual([
      { status: 'pending', waitMs: 18 * SECOND },
      { status: 'pending', waitMs: 22 * SECOND },
    ])
  })
})

test.each<[string | undefined, number | null]>([
  ['120', 120 * SECOND],
  [' 0 ', 0],
  ['Mon, 30 Nov 2026 09:01:00 GMT', 60 * SECOND],
  ['Mon, 30 Nov 2026 08:00:00 GMT', 0],
  ['-1', null],
  ['1.5', null],
  ['soon', null],
  ['Mon, whenever', null],
  ['', null],
  [undefined, null],
])('Retry-After %j is %j ms', (value, ms) => {
  expect(parseRetryAfter(value, now)).toBe(ms)
})
