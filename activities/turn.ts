import { setTimeout as sleep } from 'node:timers/promises'
import { Context } from '@temporalio/activity'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import type { TurnRow } from '../db/entities/turn.ts'
import { appendEvents, journalCursor } from '../db/events.ts'
import type { Append } from '../db/events.ts'
import { getSandbox } from '../db/sandboxes.ts'
import type { TurnEnd } from '../db/turn-end.ts'
import { endStrayTurn, endTurn, getTurn, startTurn } from '../db/turns.ts'
import { errorText, isAppError } from '../domain/errors.ts'
import { eventBatchMax, eventBatchMs, reconnectMs, supervisorLostMs, turnHeartbeatEveryMs } from '../domain/limits.ts'
import type { JournalEntry } from '../domain/supervisor-protocol.ts'
import { isSupervisorUnreachable } from '../sandbox/supervisor-calls.ts'
import * as events from '../telemetry/events/turns.ts'
import { batches } from './batch.ts'
import type { ActivityDeps } from './deps.ts'
import { withHeartbeat } from './heartbeat.ts'
import { inspected, mayLive, noteFailure } from './sandbox.ts'
import { followWishes } from './turn-wishes.ts'

/** `over`: it has ended, in whatever way; `lost`: its sandbox is not there any more; `unwanted`: the session has ended or moved on. */
export type TurnOutcome = 'over' | 'lost' | 'unwanted'

type Work = { sessionId: string; turn: TurnRow; sandbox: SandboxRow }

/**
 * What the log says of an entry of the journal; null: the log has it already in the platform's own words, or will.
 * @param waitMs how long a question waits for an answer
 */
const entryOf = (entry: JournalEntry, turnId: string, waitMs: number): Append['entries'][number] | null => {
  const journalSeq = entry.seq
  switch (entry.type) {
    case 'turn_started':
    case 'permission_replied':
      return null
    case 'permission_asked': {
      const asks = { turnId: entry.turn_id ?? turnId, request: entry.permission, waitMs }
      return { journalSeq, type: 'permission.asked', data: {}, asks }
    }
    case 'harness':
      return { journalSeq, type: 'harness', data: { turn_id: entry.turn_id, ...entry.event } }
    case 'turn_finished': {
      const { status, error, usage } = entry.result
      return { journalSeq, type: 'turn.finished', data: { turn_id: entry.turn_id, status, error, usage } }
    }
    case 'harness_exited': {
      const { turn_id, code, signal, tail } = entry
      return { journalSeq, type: 'harness.exited', data: { turn_id, code, signal, tail } }
    }
    default:
      return { journalSeq, type: 'harness.restarted', data: {} }
  }
}

const endOf = (entries: JournalEntry[], turnId: string): TurnEnd | undefined => {
  const finished = entries.find((entry) => entry.type === 'turn_finished' && entry.turn_id === turnId)
  return finished?.type === 'turn_finished' ? { turnId, ...finished.result } : undefined
}

/** Writes a group of the journal to the log. @returns null while the turn goes on */
const append = async (deps: ActivityDeps, work: Work, group: JournalEntry[]): Promise<TurnOutcome | null> => {
  const { sessionId, turn, sandbox } = work
  const waitMs = deps.config.session.permissionTimeoutMs
  const entries = group.flatMap((entry) => entryOf(entry, turn.id, waitMs) ?? [])
  const turnEnd = endOf(group, turn.id)
  if (entries.length === 0) return null
  const written = await appendEvents(deps.sql, {
    sessionId,
    sandboxId: sandbox.id,
    entries,
    ...(turnEnd === undefined ? {} : { turnEnd }),
  })
  events.eventsAppended(deps, written.appended)
  if (written.deliveries > 0) deps.outbox.kick()
  if (written.ended) return 'unwanted'
  for (const { asks } of entries)
    if (asks !== undefined)
      events.permissionAsked(deps, { session_id: sessionId, turn_id: asks.turnId, kind: asks.request.kind })
  if (turnEnd === undefined) return null
  events.turnFinished(deps, {
    session_id: sessionId,
    turn_id: turn.id,
    status: turnEnd.status,
    duration_ms: turn.started_at === null ? null : Date.now() - turn.started_at.getTime(),
    error_code: turnEnd.error?.code ?? null,
  })
  return 'over'
}

/** @returns null when the supervisor has it; a turn that it will not take, whoever asks, has failed */
const giveTurn = async (deps: ActivityDeps, { turn, sandbox, sessionId }: Work): Promise<TurnOutcome | null> => {
  const { id: turn_id, parts, model } = turn
  try {
    await deps.supervisor.startTurn(sandbox, { turn_id, parts, ...(model === null ? {} : { model }) })
    return null
  } catch (error) {
    if (!isAppError(error) || error.code !== 'upstream') throw error
    const failure = { code: 'harness_error', message: error.message }
    await endTurn(deps.sql, sessionId, { turnId: turn_id, status: 'failed', reply: null, error: failure, usage: null })
    events.turnFinished(deps, {
      session_id: sessionId,
      turn_id,
      status: 'failed',
      duration_ms: turn.started_at === null ? null : Date.now() - turn.started_at.getTime(),
      error_code: failure.code,
    })
    return 'over'
  }
}

/** Gives the turn to the sandbox, which may have it already, and writes its journal to the log until the turn is over. */
const followOnce = async (deps: ActivityDeps, work: Work, heard: () => void): Promise<TurnOutcome> => {
  const { sandbox } = work
  const signal = Context.current().cancellationSignal
  const refused = await giveTurn(deps, work)
  if (refused !== null) return refused
  heard()
  const after = await journalCursor(deps.sql, sandbox.id)
  const enough = new AbortController()
  const journal = deps.supervisor.events(sandbox, { after, signal: AbortSignal.any([signal, enough.signal]) })
  try {
    for await (const group of batches(journal, { everyMs: eventBatchMs, max: eventBatchMax })) {
      heard()
      const outcome = await append(deps, work, group)
      if (outcome !== null) return outcome
    }
  } finally {
    enough.abort()
  }
  // The journal ends by the signal alone; whoever cancelled knows why.
  await Context.current().cancelled
  return 'unwanted'
}

/** The sandbox does not answer, or is not in a state to take this turn, which may pass. */
const isSilence = (error: unknown): boolean =>
  isSupervisorUnreachable(error) || (isAppError(error) && (error.code === 'conflict' || error.code === 'upstream'))

/**
 * Follows through broken connections, until the turn is over or the sandbox is given up. A harness may say nothing for as long as it likes; what counts is how
 * long its supervisor has not answered.
 */
const follow = async (deps: ActivityDeps, work: Work): Promise<TurnOutcome> => {
  const signal = Context.current().cancellationSignal
  let silentSince: number | null = null
  for (;;)
    try {
      return await followOnce(deps, work, () => (silentSince = null))
    } catch (error) {
      if (signal.aborted || !isSilence(error)) throw error
      silentSince ??= Date.now()
      const evidence = await inspected(deps, work.sandbox.name)
      if (!mayLive(evidence) || Date.now() - silentSince > supervisorLostMs) {
        const message = `It does not answer any more: ${errorText(error)}`
        await noteFailure(deps, work.sandbox, { code: 'sandbox_lost', message, evidence }, 'session')
        return 'lost'
      }
      await sleep(reconnectMs, undefined, { signal })
    }
}

/** Without this its session would look at it again and again, and run nothing behind it. */
const interruptStray = async (deps: ActivityDeps, turn: TurnRow): Promise<void> => {
  const { session_id, id: turn_id } = turn
  const error = { code: 'sandbox_lost', message: 'The sandbox was lost while this message was worked on' }
  const end = { turnId: turn_id, status: 'interrupted' as const, reply: null, error, usage: null }
  if (!(await endStrayTurn(deps.sql, session_id, end))) return
  const duration_ms = turn.started_at === null ? null : Date.now() - turn.started_at.getTime()
  events.turnFinished(deps, { session_id, turn_id, status: end.status, duration_ms, error_code: error.code })
}

const run = async (deps: ActivityDeps, ids: { turnId: string; sandboxId: string }): Promise<TurnOutcome> => {
  const [before, sandbox] = await Promise.all([getTurn(deps.sql, ids.turnId), getSandbox(deps.sql, ids.sandboxId)])
  if (before === null || sandbox === null) return 'unwanted'
  if (sandbox.state !== 'claimed') return 'lost'
  // Nobody has begun it: if there is no sandbox to begin it in, it waits for the next one instead of being interrupted.
  if (before.status === 'queued') {
    const evidence = await inspected(deps, sandbox.name)
    const failure = { code: 'sandbox_lost' as const, message: 'It is not there any more.', evidence }
    if (!mayLive(evidence)) return await noteFailure(deps, sandbox, failure, 'session').then(() => 'lost')
  }
  const turn = await startTurn(deps.sql, ids.turnId, ids.sandboxId)
  if (turn === null) {
    if (before.status === 'running') await interruptStray(deps, before)
    return before.status === 'queued' || before.status === 'running' ? 'unwanted' : 'over'
  }
  const { session_id: sessionId, id: turn_id } = turn
  if (before.status === 'queued') events.turnStarted(deps, { session_id: sessionId, turn_id, sandbox_id: sandbox.id })
  const over = new AbortController()
  // Not waited for: it may be amid a call to a sandbox that does not answer any more.
  void followWishes(deps, { sessionId, turnId: turn_id, sandbox }, over.signal)
  try {
    return await follow(deps, { sessionId, turn, sandbox })
  } finally {
    over.abort()
  }
}

export const turnActivities = (deps: ActivityDeps) => ({
  /**
   * Runs one turn in the sandbox and writes all that happens to the log. Repeated by another worker it goes on where the log ends: the supervisor
   * knows the turn by its id, and its journal is read from the last entry that the log has.
   */
  runTurn: (ids: { turnId: string; sandboxId: string }): Promise<TurnOutcome> =>
    withHeartbeat(turnHeartbeatEveryMs, () => run(deps, ids)),
})
