import { AppError } from '../domain/errors.ts'
import type { NewEvent } from '../domain/events.ts'
import { isEnded } from '../domain/session.ts'
import { DELETED } from '../domain/turn.ts'
import type { MessagePart, TurnStatus } from '../domain/turn.ts'
import type { SandboxRow } from './entities/sandbox.ts'
import type { TurnRow } from './entities/turn.ts'
import { lockSession, writeEvents } from './session-end.ts'
import type { LockedSession } from './session-end.ts'
import { pgArray } from './sql.ts'
import type { Sql } from './sql.ts'

/**
 * What a user does with messages that wait behind a running turn. Each call holds the session's row, as the start of a turn does, so a message is either
 * changed before it begins, or has begun and is left as it is.
 */

/** The running turn, which has been told to stop, or will be by whoever follows it. */
export type Interrupted = { turnId: string; sandbox: SandboxRow | null }

const sandboxOf = (tx: Sql, id: string | null): Promise<SandboxRow | null> =>
  tx.one<SandboxRow>("select * from sandbox where id = $1 and state = 'claimed'", [id])

type Running = { id: string; sandbox_id: string | null; asked: boolean }

/** Writes down that the running turn is to stop. @returns null when none runs */
const interruptRunning = async (tx: Sql, session: LockedSession, reason: 'abort' | 'send_now') => {
  const running = await tx.one<Running>(
    `select id, sandbox_id, interrupt_requested_at is not null as asked from turn where session_id = $1 and status = 'running'`,
    [session.id],
  )
  if (running === null) return { interrupted: null, events: [] }
  const events: NewEvent[] = running.asked
    ? []
    : [{ type: 'turn.interrupt_requested', data: { turn_id: running.id, reason } }]
  if (!running.asked) await tx.query('update turn set interrupt_requested_at = now() where id = $1', [running.id])
  return { interrupted: { turnId: running.id, sandbox: await sandboxOf(tx, running.sandbox_id) }, events }
}

const aborted = { code: 'aborted', message: 'Cancelled before it began' }

/**
 * Cancels all that waits, and has what runs stop; nothing begins in between.
 * @returns the turn that is to stop, or null
 */
export const abortTurns = (sql: Sql, sessionId: string): Promise<Interrupted | null> =>
  sql.tx(async (tx) => {
    const session = await lockSession(tx, sessionId)
    if (session === null || isEnded(session.status)) return null
    const cancelled = await tx.query<{ id: string; seq: number }>(
      `update turn set status = 'cancelled', finished_at = now(), error = $2::jsonb
       where session_id = $1 and status = 'queued' returning id, seq`,
      [sessionId, aborted],
    )
    const { interrupted, events } = await interruptRunning(tx, session, 'abort')
    const told = cancelled
      .toSorted((a, b) => a.seq - b.seq)
      .map(({ id }): NewEvent => ({
        type: 'turn.finished',
        data: { turn_id: id, status: 'cancelled', error: aborted },
      }))
    if (told.length + events.length > 0) await writeEvents(tx, session, [...told, ...events])
    return interrupted
  })

export type QueuedTurn = Pick<TurnRow, 'id' | 'status' | 'parts' | 'created_at' | 'edited_at'>

/** In the order in which they will run; without what is in their files. */
export const listQueue = (sql: Sql, sessionId: string): Promise<QueuedTurn[]> =>
  sql.query<QueuedTurn>(
    `select id, status, created_at, edited_at, (
       select coalesce(jsonb_agg(case p->>'type' when 'file' then p - 'url' else p end order by i), '[]')
       from jsonb_array_elements(parts) with ordinality e (p, i)) parts
     from turn where session_id = $1 and status = 'queued' order by seq`,
    [sessionId],
  )

const wasDeleted = (turn: TurnRow): boolean => turn.status === 'cancelled' && turn.error?.code === DELETED

const WHAT_HAPPENED: Record<Exclude<TurnStatus, 'queued'>, string> = {
  running: 'runs already',
  done: 'is done',
  failed: 'has failed',
  interrupted: 'was interrupted',
  cancelled: 'was cancelled',
}

/** It does not wait any more. */
const tooLate = (turn: TurnRow): AppError => {
  const what = wasDeleted(turn) ? 'was deleted' : WHAT_HAPPENED[turn.status as Exclude<TurnStatus, 'queued'>]
  const reason = turn.status === 'running' ? 'turn_started' : 'turn_over'
  return new AppError('conflict', `message ${turn.id} ${what}; only one that waits can be changed`, { reason })
}

type Ids = { sessionId: string; turnId: string }
type Work<T> = (tx: Sql, session: LockedSession, turn: TurnRow) => Promise<T>

/** @throws AppError `not_found`; `gone` when the session has ended */
const withTurn = <T>(sql: Sql, { sessionId, turnId }: Ids, work: Work<T>): Promise<T> =>
  sql.tx(async (tx) => {
    const session = await lockSession(tx, sessionId)
    const turn = await tx.one<TurnRow>('select * from turn where id = $1 and session_id = $2', [turnId, sessionId])
    if (session === null || turn === null) throw new AppError('not_found', `message ${turnId} not found`)
    if (isEnded(session.status)) throw new AppError('gone', `session ${sessionId} has ended: ${session.end_reason}`)
    return work(tx, session, turn)
  })

/**
 * Changes what a waiting message says. The same again changes nothing.
 * @param change the new parts, made from those that it has
 * @throws AppError `not_found`, `gone`; `conflict` when it does not wait any more
 */
export const editQueued = (sql: Sql, ids: Ids, change: (parts: MessagePart[]) => MessagePart[]): Promise<TurnRow> =>
  withTurn(sql, ids, async (tx, session, turn) => {
    if (turn.status !== 'queued') throw tooLate(turn)
    const parts = change(turn.parts)
    const edited = await tx.one<TurnRow>(
      'update turn set parts = $2::jsonb, edited_at = now() where id = $1 and parts <> $2::jsonb returning *',
      [turn.id, parts],
    )
    if (edited === null) return turn
    await writeEvents(tx, session, [{ type: 'turn.edited', data: { turn_id: turn.id, parts } }])
    return edited
  })

/**
 * Takes a waiting message back. One that was taken back before is left as it is.
 * @throws AppError `not_found`, `gone`; `conflict` when it does not wait any more
 */
export const deleteQueued = (sql: Sql, ids: Ids): Promise<TurnRow> =>
  withTurn(sql, ids, async (tx, session, turn) => {
    if (wasDeleted(turn)) return turn
    if (turn.status !== 'queued') throw tooLate(turn)
    const error = { code: DELETED, message: 'Deleted before it began' }
    const deleted = await tx.one<TurnRow>(
      "update turn set status = 'cancelled', finished_at = now(), error = $2::jsonb where id = $1 returning *",
      [turn.id, error],
    )
    await writeEvents(tx, session, [{ type: 'turn.finished', data: { turn_id: turn.id, status: 'cancelled', error } }])
    return deleted!
  })

/** Puts a waiting turn before the others that wait; the numbers are those they had together. @returns whether it was not the first */
const putFirst = async (tx: Sql, turn: TurnRow): Promise<boolean> => {
  const before = await tx.query<{ id: string; seq: number }>(
    "select id, seq from turn where session_id = $1 and status = 'queued' and seq < $2 order by seq",
    [turn.session_id, turn.seq],
  )
  if (before.length === 0) return false
  const order = [turn.id, ...before.map(({ id }) => id)]
  const numbers = [...before.map(({ seq }) => seq), turn.seq]
  // A number is unique at every moment, so they all step aside first.
  await tx.query('update turn set seq = -seq where id = any($1::uuid[])', [pgArray(order)])
  await tx.query('update turn set seq = n.seq from unnest($1::uuid[], $2::int[]) n (id, seq) where turn.id = n.id', [
    pgArray(order),
    pgArray(numbers),
  ])
  return true
}

/**
 * Has a waiting message run next, and the running turn stop for it. One that runs already has what was wanted.
 * @returns `interrupted`: the turn that is to stop for it, or null
 * @throws AppError `not_found`, `gone`; `conflict` when it is over
 */
export const sendNow = (sql: Sql, ids: Ids): Promise<{ turn: TurnRow; interrupted: Interrupted | null }> =>
  withTurn(sql, ids, async (tx, session, turn) => {
    if (turn.status === 'running') return { turn, interrupted: null }
    if (turn.status !== 'queued') throw tooLate(turn)
    const moved = await putFirst(tx, turn)
    const { interrupted, events } = await interruptRunning(tx, session, 'send_now')
    const told: NewEvent[] = [
      ...(moved ? [{ type: 'turn.moved' as const, data: { turn_id: turn.id, position: 0 } }] : []),
      ...events,
    ]
    if (told.length > 0) await writeEvents(tx, session, told)
    const now = await tx.one<TurnRow>('select * from turn where id = $1', [turn.id])
    return { turn: now!, interrupted }
  })
