import type { NewEvent } from '../domain/events.ts'
import { limitReached, withTurnUsage } from '../domain/session-limits.ts'
import type { LimitReached, SessionUsage } from '../domain/session-limits.ts'
import type { TurnReply, TurnStatus, TurnUsage } from '../domain/turn.ts'
import { closePermissions } from './permission-close.ts'
import type { LockedSession } from './session-end.ts'
import type { Sql } from './sql.ts'

export type TurnEnd = {
  turnId: string
  status: Exclude<TurnStatus, 'queued' | 'running'>
  reply: TurnReply | null
  error: { code: string; message: string } | null
  usage: TurnUsage | null
}

/** What the log is to say around the `turn.finished` of a turn. */
export type Around = { before: NewEvent[]; after: NewEvent[] }

export const limitMessage = ({ limit, max, used }: LimitReached): string =>
  limit === 'max_turns'
    ? `The session has had ${used} of its ${max} turns (max_turns)`
    : `The session has used ${used} of its ${max} US dollars (max_cost_usd)`

/** Why a message does not run that waited when the limit was reached. */
const refusal = (reached: LimitReached) => ({ code: 'limit_reached', message: `${limitMessage(reached)}.` })

/**
 * Compares what a session has used with what it may use, when no turn of it runs. A limit that is reached is told once, and what waits is refused; one that was
 * raised is forgotten. Within a transaction that holds the session's row.
 * @param session with its limits and its usage as they are now
 * @returns what the log is to say
 */
export const applyLimits = async (tx: Sql, session: LockedSession): Promise<NewEvent[]> => {
  const reached = limitReached(session, session.usage)
  if (reached?.limit !== session.limit_reached)
    await tx.query('update session set limit_reached = $2 where id = $1', [session.id, reached?.limit ?? null])
  if (reached === null) return []
  const error = refusal(reached)
  const refused = await tx.query<{ id: string; seq: number }>(
    `update turn set status = 'cancelled', finished_at = now(), error = $2::jsonb
     where session_id = $1 and status = 'queued' returning id, seq`,
    [session.id, error],
  )
  const told: NewEvent[] =
    reached.limit === session.limit_reached ? [] : [{ type: 'session.limit_reached', data: { ...reached } }]
  return [
    ...told,
    ...refused
      .toSorted((a, b) => a.seq - b.seq)
      .map(({ id }): NewEvent => ({ type: 'turn.finished', data: { turn_id: id, status: 'cancelled', error } })),
  ]
}

export const setUsage = async (tx: Sql, sessionId: string, usage: SessionUsage): Promise<void> => {
  await tx.query('update session set usage = $2::jsonb where id = $1', [sessionId, usage])
}

/** One more turn of a session begins. Within a transaction that holds its row. */
export const countTurn = ({ id, usage }: LockedSession, tx: Sql): Promise<void> =>
  setUsage(tx, id, { ...usage, turns: usage.turns + 1 })

/**
 * Ends a running turn, adds what it used, and closes what its harness asked. A compare-and-set, within a transaction that holds the session's row.
 * @returns null when it was not running
 */
export const writeTurnEnd = async (tx: Sql, session: LockedSession, end: TurnEnd): Promise<Around | null> => {
  const ended = await tx.one(
    "update turn set status = $2, reply = $3::jsonb, error = $4::jsonb, usage = $5::jsonb, finished_at = now() where id = $1 and status = 'running' returning id",
    [end.turnId, end.status, end.reply, end.error, end.usage],
  )
  if (ended === null) return null
  const usage = withTurnUsage(session.usage, end.usage)
  if (usage !== session.usage) await setUsage(tx, session.id, usage)
  return {
    before: await closePermissions(tx, session.id, 'turn_over'),
    after: await applyLimits(tx, { ...session, usage }),
  }
}
