import type { NewEvent } from '../domain/events.ts'
import type { Sql } from './sql.ts'

/** Nobody waits any more for what a session's harness asked. Within a transaction that holds the session's row. @returns what the log is to say */
export const closePermissions = async (
  tx: Sql,
  sessionId: string,
  reason: 'turn_over' | 'session_ended',
): Promise<NewEvent[]> => {
  const closed = await tx.query<{ id: string; turn_id: string }>(
    `update permission set status = 'cancelled', decided_by = $2, decided_at = now()
     where session_id = $1 and status = 'open' returning id, turn_id`,
    [sessionId, reason],
  )
  return closed.map(({ id, turn_id }) => ({ type: 'permission.expired', data: { turn_id, permission_id: id, reason } }))
}
