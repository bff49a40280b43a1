import type { SessionEvent } from '../domain/events.ts'
import type { Sql } from './sql.ts'

/** Why a session had to move, for the user: what became of its last sandbox, and the turn that was running there. */
export type Loss = { reason: string; message: string | null; interrupted_turn: string | null }

/** @param boundAttempt the last attempt that had been bound */
export const lossOf = async (
  sql: Sql,
  sessionId: string,
  boundAttempt: number,
): Promise<Loss & { from_attempt: number }> => {
  const lost = await sql.one<Loss>(
    `select b.failure_code reason, b.failure_message message,
       (select t.id from turn t where t.session_id = $1 and t.sandbox_id = b.id and t.status = 'interrupted' order by t.seq desc limit 1) interrupted_turn
     from sandbox b where b.session_id = $1 and b.state in ('failed', 'gone', 'ending') and b.claimed_at is not null
     order by b.claimed_at desc limit 1`,
    [sessionId],
  )
  return {
    reason: lost?.reason ?? 'sandbox_lost',
    message: lost?.message ?? null,
    interrupted_turn: lost?.interrupted_turn ?? null,
    from_attempt: boundAttempt,
  }
}

/** The moves of a session, in order. */
export const movesOf = (sql: Sql, sessionId: string): Promise<SessionEvent[]> =>
  sql.query<SessionEvent>(
    "select seq, type, data, created_at from event where session_id = $1 and type = 'sandbox_moved' order by seq limit 100",
    [sessionId],
  )
