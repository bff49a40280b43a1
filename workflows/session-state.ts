import type { SessionView } from '../activities/session.ts'
import { deadOnArrivalMax, sandboxMovesMax, startRetriesMax } from '../domain/limits.ts'
import type { FailureCode } from '../domain/session.ts'
import { isEnded } from '../domain/session.ts'

/** What a session does next, decided from what the database says: data in, data out. */
export type SessionStep =
  | { do: 'end' }
  | { do: 'fail'; code: FailureCode; reason: string }
  /** A deadline has passed: the session ends, unless a message came a moment ago. */
  | { do: 'expire' }
  | { do: 'obtain'; warm: boolean }
  | { do: 'provision'; sandboxId: string }
  | { do: 'bind'; sandboxId: string }
  | { do: 'turn'; turnId: string; sandboxId: string }
  /** Behind the last turn; the next one may begin meanwhile. */
  | { do: 'checkpoint' }
  /** A restart: a last checkpoint, then another sandbox. */
  | { do: 'leave' }
  | { do: 'wait'; ms: number; until: 'idle_timeout' | 'max_lifetime' }

/** Sandboxes that this start used up. Not durable: what is lost is a little patience. */
export type Spent = {
  /** Warm ones that did not answer. */
  dead: number
  /** Ones made for this session that did not start. */
  failed: number
  lastFailure: { code: FailureCode; message: string } | null
}

/** After these another sandbox may do better: what went wrong may be of this one alone. */
const MAY_BE_CHANCE: FailureCode[] = ['sandbox_lost', 'harness_exited']

/** Looked at again no sooner than this: the clocks of Temporal and of the database differ by a little. */
export const shortestWaitMs = 500

const obtainOr = (view: SessionView, spent: Spent): SessionStep => {
  const { lastFailure } = spent
  const lost = view.attempt - view.boundAttempt
  if (lost > sandboxMovesMax) {
    const reason = `${lost} sandboxes in a row were lost; the last: ${lastFailure?.message ?? 'no message'}`
    return { do: 'fail', code: 'sandbox_lost', reason }
  }
  const patience = lastFailure !== null && MAY_BE_CHANCE.includes(lastFailure.code) ? startRetriesMax : 0
  if (lastFailure !== null && spent.failed > patience)
    return { do: 'fail', code: lastFailure.code, reason: lastFailure.message }
  return { do: 'obtain', warm: spent.dead < deadOnArrivalMax }
}

/** The next moment at which the session ends by itself. */
const deadlineOf = (view: SessionView): { at: number; until: 'idle_timeout' | 'max_lifetime' } =>
  view.status === 'ready' && view.idleAt < view.maxAgeAt
    ? { at: view.idleAt, until: 'idle_timeout' }
    : { at: view.maxAgeAt, until: 'max_lifetime' }

/** A checkpoint is due, and nothing is in its way. @param storing one is being taken now */
const checkpointDue = ({ checkpointAt, turn }: SessionView, now: number, storing: boolean): boolean =>
  checkpointAt !== undefined && checkpointAt <= now && turn?.status !== 'running' && !storing

/**
 * @param now milliseconds since 1970
 * @param storing a checkpoint is being taken now
 */
export const nextStep = (view: SessionView, spent: Spent, now: number, storing: boolean): SessionStep => {
  if (isEnded(view.status)) return { do: 'end' }
  if (view.status === 'creating' && view.creatingDeadlineAt <= now) {
    const last = spent.lastFailure === null ? '' : `; the last failure: ${spent.lastFailure.message}`
    return { do: 'fail', code: 'start_timeout', reason: `The session did not become ready in time${last}` }
  }
  if (view.maxAgeAt <= now) return { do: 'expire' }
  const { sandbox } = view
  if (sandbox === null) return obtainOr(view, spent)
  if (sandbox.state === 'provisioning') return { do: 'provision', sandboxId: sandbox.id }
  if (sandbox.state !== 'claimed') return obtainOr(view, spent)
  if (view.boundAttempt < view.attempt) return { do: 'bind', sandboxId: sandbox.id }
  if (view.restart === true) return { do: 'leave' }
  if (checkpointDue(view, now, storing)) return { do: 'checkpoint' }
  if (view.turn !== null) return { do: 'turn', turnId: view.turn.id, sandboxId: sandbox.id }
  const { at, until } = deadlineOf(view)
  if (at <= now) return { do: 'expire' }
  const look = view.checkpointAt === undefined || storing ? at : Math.min(at, view.checkpointAt)
  return { do: 'wait', ms: Math.max(shortestWaitMs, look - now), until }
}

/** Whether a step that takes long is still wanted, by what the database says now. */
export const isWanted = (step: SessionStep, view: SessionView, now: number): boolean => {
  if (isEnded(view.status) || view.maxAgeAt <= now) return false
  if (view.status === 'creating' && view.creatingDeadlineAt <= now) return false
  if (step.do !== 'provision' && step.do !== 'turn') return true
  const { sandbox } = view
  return sandbox?.id === step.sandboxId && (sandbox.state === 'provisioning' || sandbox.state === 'claimed')
}

/** The latest moment at which a step that takes long is looked at again, from now, in milliseconds. */
export const lookAgainIn = (view: SessionView, now: number): number => {
  const at = view.status === 'creating' ? Math.min(view.creatingDeadlineAt, view.maxAgeAt) : view.maxAgeAt
  return Math.max(shortestWaitMs, at - now)
}

const WAITING: Record<SessionStep['do'], string> = {
  end: 'nothing: it has ended',
  fail: 'its failure to be written',
  expire: 'its end to be written',
  obtain: 'a sandbox',
  provision: 'its sandbox to start',
  bind: 'its sandbox to take it on',
  turn: 'the harness to answer',
  checkpoint: 'its checkpoint to be taken',
  leave: 'its sandbox to be given up',
  wait: 'a message',
}

/** A page for people, shown in the Temporal UI. */
export const describeSession = (view: SessionView, step: SessionStep): string => {
  const time = (ms: number): string => new Date(ms).toISOString()
  const rows: [string, string][] = [
    ['Status', view.endReason ?? view.status],
    ['Waiting for', WAITING[step.do]],
    [
      'Sandbox',
      view.sandbox === null ? 'none yet' : `\`${view.sandbox.name}\` (${view.sandbox.state}, attempt ${view.attempt})`,
    ],
    ...(view.turn === null ? [] : [['Turn', `\`${view.turn.id}\` (${view.turn.status})`] satisfies [string, string]]),
    ...(view.status === 'ready' ? [['Ends when idle', time(view.idleAt)] satisfies [string, string]] : []),
    ['Ends at the latest', time(view.maxAgeAt)],
  ]
  return ['| | |', '|---|---|', ...rows.map(([name, value]) => `| ${name} | ${value} |`)].join('\n')
}
