import { createHash } from 'node:crypto'
import { AppError } from '../domain/errors.ts'
import { queuedTurnsMax } from '../domain/limits.ts'
import { isEnded } from '../domain/session.ts'
import { limitReached } from '../domain/session-limits.ts'
import type { MessagePart, TurnStatus } from '../domain/turn.ts'
import type { SandboxRow } from './entities/sandbox.ts'
import type { TurnRow } from './entities/turn.ts'
import { lockSession, writeEvents } from './session-end.ts'
import type { LockedSession } from './session-end.ts'
import type { Sql } from './sql.ts'
import { countTurn, limitMessage, writeTurnEnd } from './turn-end.ts'
import type { TurnEnd } from './turn-end.ts'

export type NewTurn = {
  sessionId: string
  turnId: string
  parts: MessagePart[]
  model: string | null
  idempotencyKey: string | null
  bodyHash: string | null
}

export type Enqueued = {
  turn: TurnRow
  /** The key was known: this is the turn that it made. */
  existing: boolean
  /** Nothing was in its way: it is `running` in this sandbox, and may be given to it at once. */
  startNow: SandboxRow | null
}

/** Messages of a session that wait, and that run. */
type Open = { queued: number; open: number; next: number }

/** @throws AppError `conflict` with `limit_reached` when what came before has used up a limit, or will */
const checkLimits = (session: LockedSession, { queued }: Open): void => {
  const { usage } = session
  const reached = limitReached(session, { ...usage, turns: usage.turns + queued })
  if (reached === null) return
  const message = `${limitMessage(reached)}: raise ${reached.limit} of the session (PATCH), or open another one`
  throw new AppError('conflict', message, { reason: 'limit_reached' })
}

/**
 * Stores a user's message as the next turn of its session. With nothing before it, it starts at once; else it waits in order.
 * @throws AppError `not_found`, `gone` (ended), `conflict` (key with another body, or `limit_reached`), `rate_limited` (too many waiting)
 */
export const enqueueTurn = (sql: Sql, turn: NewTurn): Promise<Enqueued> =>
  sql.tx(async (tx) => {
    const session = await lockSession(tx, turn.sessionId)
    if (session === null) throw new AppError('not_found', `session ${turn.sessionId} not found`)
    if (turn.idempotencyKey !== null) {
      const existing = await tx.one<TurnRow>('select * from turn where session_id = $1 and idempotency_key = $2', [
        turn.sessionId,
        turn.idempotencyKey,
      ])
      if (existing !== null && existing.body_hash !== turn.bodyHash)
        throw new AppError(
          'conflict',
          'This Idempotency-Key was used with another message; use a new key for a new message',
        )
      if (existing !== null) return { turn: existing, existing: true, startNow: null }
    }
    if (isEnded(session.status)) throw new AppError('gone', `session ${session.id} has ended: ${session.end_reason}`)
    const before = await tx.one<Open>(
      `select (select count(*)::int from turn where session_id = $1 and status in ('queued', 'running')) open,
         (select count(*)::int from turn where session_id = $1 and status = 'queued') queued,
         (select coalesce(max(seq), 0)::int + 1 from turn where session_id = $1) next`,
      [session.id],
    )
    if (before!.open >= queuedTurnsMax)
      throw new AppError('rate_limited', `${queuedTurnsMax} messages wait in this session, which is the most`, {
        retryAfterSeconds: 10,
      })
    checkLimits(session, before!)
    // One that is about to be given up begins nothing more.
    const stays = session.restart_requested_at === null
    const sandbox =
      stays && before!.open === 0 && session.status === 'ready' && session.bound_attempt === session.attempt
        ? await tx.one<SandboxRow>("select * from sandbox where id = $1 and state = 'claimed'", [session.sandbox_id])
        : null
    const row = await tx.one<TurnRow>(
      `insert into turn (id, session_id, seq, status, idempotency_key, body_hash, parts, model, sandbox_id, created_at, started_at)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9, now(), case when $4 = 'running' then now() end) returning *`,
      [
        turn.turnId,
        session.id,
        before!.next,
        sandbox === null ? 'queued' : 'running',
        turn.idempotencyKey,
        turn.bodyHash,
        turn.parts,
        turn.model,
        sandbox?.id ?? null,
      ],
    )
    if (sandbox !== null) await countTurn(session, tx)
    await writeEvents(tx, session, [
      { type: 'turn.queued', data: { turn_id: turn.turnId, parts: turn.parts } },
      ...(sandbox === null ? [] : [{ type: 'turn.started' as const, data: { turn_id: turn.turnId } }]),
    ])
    await tx.query(
      `with active as (update session set last_activity_at = now() where id = $1)
       insert into outbox (kind, subject, created_at, attempts, next_at) values ('signal_session', $1, now(), 0, now())`,
      [session.id],
    )
    return { turn: row!, existing: false, startNow: sandbox }
  })

/**
 * The first waiting turn begins in the sandbox of its session.
 * @returns null when it is not that any more, or the session has left that sandbox; the running one again when it began there before
 */
export const startTurn = (sql: Sql, turnId: string, sandboxId: string): Promise<TurnRow | null> =>
  sql.tx(async (tx) => {
    const known = await getTurn(tx, turnId)
    if (known === null) return null
    const session = await lockSession(tx, known.session_id)
    const turn = await getTurn(tx, turnId)
    if (session === null || turn === null || isEnded(session.status)) return null
    if (turn.status === 'running') return turn.sandbox_id === sandboxId ? turn : null
    // Who asks read it before the lock; what began in a sandbox that the session has left would never end.
    if (turn.status !== 'queued' || session.sandbox_id !== sandboxId) return null
    // One that is about to be given up begins nothing more; the turn waits for the next one.
    if (session.restart_requested_at !== null) return null
    // Another one may have been put before it since.
    const next = await tx.one<{ id: string }>(
      "select id from turn where session_id = $1 and status in ('queued', 'running') order by status = 'running' desc, seq limit 1",
      [session.id],
    )
    if (next?.id !== turnId) return null
    const started = await tx.one<TurnRow>(
      "update turn set status = 'running', sandbox_id = $2, started_at = now() where id = $1 returning *",
      [turnId, sandboxId],
    )
    await countTurn(session, tx)
    await writeEvents(tx, session, [{ type: 'turn.started', data: { turn_id: turnId } }])
    return started
  })

export const getTurn = (sql: Sql, id: string): Promise<TurnRow | null> =>
  sql.one<TurnRow>('select * from turn where id = $1', [id])

/** Its status alone: parts and reply may be megabytes. */
export const getTurnStatus = async (sql: Sql, id: string): Promise<TurnStatus | null> =>
  (await sql.one<{ status: TurnStatus }>('select status from turn where id = $1', [id]))?.status ?? null

/** Ends a running turn without its sandbox having said so (it is lost). A compare-and-set. @returns whether it was running */
export const endTurn = (sql: Sql, sessionId: string, end: TurnEnd): Promise<boolean> =>
  sql.tx(async (tx) => {
    const session = await lockSession(tx, sessionId)
    const around = session === null ? null : await writeTurnEnd(tx, session, end)
    if (session === null || around === null) return false
    const finished = { turn_id: end.turnId, status: end.status, error: end.error }
    await writeEvents(tx, session, [...around.before, { type: 'turn.finished', data: finished }, ...around.after])
    return true
  })

/** Ends a turn that runs in a sandbox that its session has left: nobody follows it there. @returns whether it did */
export const endStrayTurn = (sql: Sql, sessionId: string, end: TurnEnd): Promise<boolean> =>
  sql.tx(async (tx) => {
    const session = await lockSession(tx, sessionId)
    const turn = await tx.one<{ sandbox_id: string | null }>('select sandbox_id from turn where id = $1', [end.turnId])
    if (session === null || turn === null || turn.sandbox_id === session.sandbox_id) return false
    return endTurn(tx, sessionId, end)
  })

/** The running turn, or the first waiting one. */
export const openTurns = (sql: Sql, sessionId: string): Promise<TurnRow[]> =>
  sql.query<TurnRow>(
    "select * from turn where session_id = $1 and status in ('queued', 'running') order by status = 'running' desc, seq",
    [sessionId],
  )

/** Fingerprint of a request's body for its idempotency key. */
export const bodyHash = (body: unknown): string => createHash('sha256').update(JSON.stringify(body)).digest('hex')
