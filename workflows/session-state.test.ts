import { describe, expect, test } from '@jest/globals'
import type { SessionView } from '../activities/session.ts'
import { deadOnArrivalMax, sandboxMovesMax, startRetriesMax } from '../domain/limits.ts'
import { describeSession, isWanted, lookAgainIn, nextStep } from './session-state.ts'
import type { SessionStep, Spent } from './session-state.ts'

const now = Date.parse('2026-11-21T09:00:00Z')
const SECOND = 1_000
const HOUR = 3_600 * SECOND

const nothing: Spent = { dead: 0, failed: 0, lastFailure: null }
const sandbox = (state: NonNullable<SessionView['sandbox']>['state']): SessionView['sandbox'] => ({
  id: 'sandbox-1',
  name: 'lap-sandbox-1',
  state,
  toMark: false,
})
const turn = { id: 'turn-1', status: 'queued', sandboxId: null } as const

/** A session that is created a moment ago. */
const creating = (over: Partial<SessionView> = {}): SessionView => ({
  status: 'creating',
  agentId: 'agent-1',
  title: null,
  endReason: null,
  attempt: 0,
  boundAttempt: 0,
  sandbox: null,
  turn: null,
  idleAt: now + 30 * SECOND,
  maxAgeAt: now + 24 * HOUR,
  creatingDeadlineAt: now + 60 * SECOND,
  litter: [],
  ...over,
})
const ready = (over: Partial<SessionView> = {}): SessionView =>
  creating({ status: 'ready', attempt: 1, boundAttempt: 1, sandbox: sandbox('claimed'), ...over })

const failed = (code: NonNullable<Spent['lastFailure']>['code'], times: number): Spent => ({
  dead: 0,
  failed: times,
  lastFailure: { code, message: 'the last lines' },
})

describe('what a session does next', () => {
  test.each<[string, SessionView, Spent, SessionStep]>([
    ['a new one asks for a sandbox, warm if there is one', creating(), nothing, { do: 'obtain', warm: true }],
    [
      'its sandbox is started',
      creating({ attempt: 1, sandbox: sandbox('provisioning') }),
      nothing,
      { do: 'provision', sandboxId: 'sandbox-1' },
    ],
    [
      'a started sandbox is bound',
      creating({ attempt: 1, sandbox: sandbox('claimed') }),
      nothing,
      { do: 'bind', sandboxId: 'sandbox-1' },
    ],
    [
      'messages wait until it is bound',
      creating({ attempt: 1, sandbox: sandbox('claimed'), turn }),
      nothing,
      { do: 'bind', sandboxId: 'sandbox-1' },
    ],
    ['a message is a turn', ready({ turn }), nothing, { do: 'turn', turnId: 'turn-1', sandboxId: 'sandbox-1' }],
    [
      'a running turn is taken up again',
      ready({ turn: { ...turn, status: 'running', sandboxId: 'sandbox-1' } }),
      nothing,
      { do: 'turn', turnId: 'turn-1', sandboxId: 'sandbox-1' },
    ],
    [
      'with nothing to do it waits to be idle',
      ready(),
      nothing,
      { do: 'wait', ms: 30 * SECOND, until: 'idle_timeout' },
    ],
    [
      'or for its maximum age, when that comes first',
      ready({ maxAgeAt: now + 20 * SECOND }),
      nothing,
      { do: 'wait', ms: 20 * SECOND, until: 'max_lifetime' },
    ],
    [
      'it does not look again at once when the deadline is a moment ahead',
      ready({ idleAt: now + 1 }),
      nothing,
      { do: 'wait', ms: 500, until: 'idle_timeout' },
    ],
    ['an idle one ends', ready({ idleAt: now }), nothing, { do: 'expire' }],
    [
      'it is not idle while a turn is open',
      ready({ idleAt: now - HOUR, turn }),
      nothing,
      { do: 'turn', turnId: 'turn-1', sandboxId: 'sandbox-1' },
    ],
    ['its age ends it also during a turn', ready({ maxAgeAt: now, turn }), nothing, { do: 'expire' }],
    ['its age ends it also while it is created', creating({ maxAgeAt: now }), nothing, { do: 'expire' }],
    [
      'one that is created is not idle',
      creating({ idleAt: now - HOUR, attempt: 1, sandbox: sandbox('provisioning') }),
      nothing,
      { do: 'provision', sandboxId: 'sandbox-1' },
    ],
    [
      'a start that takes too long has failed',
      creating({ creatingDeadlineAt: now, attempt: 1, sandbox: sandbox('provisioning') }),
      nothing,
      { do: 'fail', code: 'start_timeout', reason: 'The session did not become ready in time' },
    ],
    [
      'and says what went wrong last',
      creating({ creatingDeadlineAt: now }),
      failed('harness_exited', 1),
      {
        do: 'fail',
        code: 'start_timeout',
        reason: 'The session did not become ready in time; the last failure: the last lines',
      },
    ],
    [
      'the deadline of the start is nothing to a session that was ready',
      ready({ creatingDeadlineAt: now - HOUR }),
      nothing,
      { do: 'wait', ms: 30 * SECOND, until: 'idle_timeout' },
    ],
    ['a lost sandbox is made up for', ready({ sandbox: sandbox('failed') }), nothing, { do: 'obtain', warm: true }],
    ['one that is being removed, too', ready({ sandbox: sandbox('ending') }), nothing, { do: 'obtain', warm: true }],
    ['one that is gone, too', ready({ sandbox: sandbox('gone') }), nothing, { do: 'obtain', warm: true }],
    [
      'a moved one is bound again before its next turn',
      ready({ attempt: 2, turn }),
      nothing,
      { do: 'bind', sandboxId: 'sandbox-1' },
    ],
    [
      'what may be chance is tried once more',
      creating({ attempt: 1, sandbox: sandbox('failed') }),
      failed('harness_exited', startRetriesMax),
      { do: 'obtain', warm: true },
    ],
    [
      'but not for ever',
      creating({ attempt: 2, sandbox: sandbox('failed') }),
      failed('harness_exited', startRetriesMax + 1),
      { do: 'fail', code: 'harness_exited', reason: 'the last lines' },
    ],
    [
      'a bad repository will not become better',
      creating({ attempt: 1, sandbox: sandbox('failed') }),
      failed('clone_failed', 1),
      { do: 'fail', code: 'clone_failed', reason: 'the last lines' },
    ],
    [
      'nor will a set-up command that fails',
      creating({ attempt: 1, sandbox: sandbox('failed') }),
      failed('setup_failed', 1),
      { do: 'fail', code: 'setup_failed', reason: 'the last lines' },
    ],
    [
      'after some warm ones that did not answer it goes cold',
      creating({ attempt: 3, sandbox: sandbox('failed') }),
      { dead: deadOnArrivalMax, failed: 0, lastFailure: null },
      { do: 'obtain', warm: false },
    ],
    [
      'one that loses sandbox after sandbox fails',
      ready({ attempt: sandboxMovesMax + 2, boundAttempt: 1, sandbox: sandbox('failed') }),
      failed('sandbox_lost', 1),
      {
        do: 'fail',
        code: 'sandbox_lost',
        reason: `${sandboxMovesMax + 1} sandboxes in a row were lost; the last: the last lines`,
      },
    ],
    [
      'one that has moved as often, and worked in between, goes on',
      ready({ attempt: sandboxMovesMax * 3, boundAttempt: sandboxMovesMax * 3, sandbox: sandbox('failed') }),
      nothing,
      { do: 'obtain', warm: true },
    ],
    ['an ended one ends', ready({ status: 'dead', turn }), nothing, { do: 'end' }],
    ['a failed one ends', creating({ status: 'failed', creatingDeadlineAt: now }), nothing, { do: 'end' }],
  ])('%s', (_, view, spent, step) => {
    expect(nextStep(view, spent, now, false)).toEqual(step)
  })
})

describe('checkpoints', () => {
  const due = { checkpointAt: now - 1 }
  const idle = ready().idleAt - now
  test.each<[string, SessionView, boolean, SessionStep]>([
    ['is taken when the turn is over', ready(due), false, { do: 'checkpoint' }],
    [
      'goes before a message that waits',
      ready({ ...due, turn: { ...turn, status: 'queued' } }),
      false,
      { do: 'checkpoint' },
    ],
    [
      'holds nothing up while it is taken',
      ready({ ...due, turn: { ...turn, status: 'queued' } }),
      true,
      { do: 'turn', turnId: turn.id, sandboxId: 'sandbox-1' },
    ],
    [
      'waits for the turn that runs',
      ready({ ...due, turn: { ...turn, status: 'running' } }),
      false,
      { do: 'turn', turnId: turn.id, sandboxId: 'sandbox-1' },
    ],
    ['is taken once at a time', ready(due), true, { do: 'wait', ms: idle, until: 'idle_timeout' }],
    [
      'that failed is waited for, and no longer than the session lives',
      ready({ checkpointAt: now + 1_000 }),
      false,
      { do: 'wait', ms: 1_000, until: 'idle_timeout' },
    ],
    ['has to wait for another sandbox', ready({ ...due, sandbox: null }), false, { do: 'obtain', warm: true }],
    ['is not taken of a session whose time is over', ready({ ...due, maxAgeAt: now }), false, { do: 'expire' }],
    ['is taken by a restart itself', ready({ ...due, restart: true }), false, { do: 'leave' }],
  ])('a checkpoint %s', (_, view, storing, step) => {
    expect(nextStep(view, nothing, now, storing)).toEqual(step)
  })
})

describe('whether a long step is still wanted', () => {
  const starting: SessionStep = { do: 'provision', sandboxId: 'sandbox-1' }
  const running: SessionStep = { do: 'turn', turnId: 'turn-1', sandboxId: 'sandbox-1' }
  test.each<[string, SessionStep, SessionView, boolean]>([
    ['a start is', starting, creating({ sandbox: sandbox('provisioning') }), true],
    ['a start that has just ended is', starting, creating({ sandbox: sandbox('claimed') }), true],
    ['a start of a deleted session is not', starting, creating({ status: 'dead', sandbox: sandbox('ending') }), false],
    [
      'a start that takes too long is not',
      starting,
      creating({ creatingDeadlineAt: now, sandbox: sandbox('provisioning') }),
      false,
    ],
    ['a start of a sandbox that failed is not', starting, creating({ sandbox: sandbox('failed') }), false],
    [
      'a start of a sandbox that is not the session’s any more is not',
      starting,
      creating({ sandbox: { id: 'sandbox-2', name: 'lap-sandbox-2', state: 'provisioning', toMark: false } }),
      false,
    ],
    ['a turn is', running, ready({ turn }), true],
    ['a turn with other messages behind it is', running, ready({ turn, idleAt: now - HOUR }), true],
    ['a turn of an old session is not', running, ready({ turn, maxAgeAt: now }), false],
    ['a turn whose sandbox is lost is not', running, ready({ turn, sandbox: sandbox('failed') }), false],
    ['a turn of a deleted session is not', running, ready({ turn, status: 'dead', sandbox: sandbox('ending') }), false],
    [
      'a turn of a moved session is not',
      running,
      ready({ turn, sandbox: { id: 'sandbox-2', name: 'x', state: 'claimed', toMark: false } }),
      false,
    ],
  ])('%s', (_, step, view, wanted) => {
    expect(isWanted(step, view, now)).toBe(wanted)
  })
})

describe('when a long step is looked at again', () => {
  test.each<[string, SessionView, number]>([
    ['at the deadline of the start', creating(), 60 * SECOND],
    ['at the maximum age, when that comes first', creating({ maxAgeAt: now + 9 * SECOND }), 9 * SECOND],
    ['at the maximum age of a ready one', ready(), 24 * HOUR],
    ['not at once, however late it is', ready({ maxAgeAt: now - HOUR }), 500],
  ])('%s', (_, view, ms) => {
    expect(lookAgainIn(view, now)).toBe(ms)
  })
})

test('the page of a session says what it waits for, and until when', () => {
  const page = describeSession(ready({ turn }), { do: 'turn', turnId: 'turn-1', sandboxId: 'sandbox-1' })
  for (const line of [
    '| Status | ready |',
    '| Waiting for | the harness to answer |',
    '| Sandbox | `lap-sandbox-1` (claimed, attempt 1) |',
    '| Turn | `turn-1` (queued) |',
    '| Ends when idle | 2026-11-21T09:00:30.000Z |',
    '| Ends at the latest | 2026-11-22T09:00:00.000Z |',
  ])
    expect(page).toContain(line)
  const ended = describeSession(ready({ status: 'dead', endReason: 'idle_timeout' }), { do: 'end' })
  expect(ended).toContain('| Status | idle_timeout |')
  expect(ended).toContain('| Waiting for | nothing: it has ended |')
})
