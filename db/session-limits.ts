import { AppError } from '../domain/errors.ts'
import { isEnded } from '../domain/session.ts'
import { limitReached } from '../domain/session-limits.ts'
import type { SessionLimits } from '../domain/session-limits.ts'
import { lockSession, writeEvents } from './session-end.ts'
import type { Sql } from './sql.ts'
import { applyLimits } from './turn-end.ts'

/**
 * Changes what a session may use. One that had reached its limit takes messages again when that was raised; one that is beyond the new limit takes no more from now on,
 * or from the end of the turn that runs.
 * @param patch what is left out stays
 * @throws AppError `not_found`, `gone`
 */
export const changeLimits = (sql: Sql, sessionId: string, patch: Partial<SessionLimits>): Promise<void> =>
  sql.tx(async (tx) => {
    const before = await lockSession(tx, sessionId)
    if (before === null) throw new AppError('not_found', `session ${sessionId} not found`)
    if (isEnded(before.status)) throw new AppError('gone', `session ${sessionId} has ended: ${before.end_reason}`)
    const { max_turns = before.max_turns, max_cost_usd = before.max_cost_usd } = patch
    if (max_turns === before.max_turns && max_cost_usd === before.max_cost_usd) return
    await tx.query('update session set max_turns = $2, max_cost_usd = $3 where id = $1', [
      sessionId,
      max_turns,
      max_cost_usd,
    ])
    const runs = await tx.one("select from turn where session_id = $1 and status = 'running'", [sessionId])
    const limits = { max_turns, max_cost_usd }
    const after = { ...before, ...limits }
    const follows = runs === null ? await applyLimits(tx, after) : []
    const limit_reached = runs === null ? (limitReached(after, before.usage)?.limit ?? null) : before.limit_reached
    await writeEvents(tx, before, [{ type: 'session.updated', data: { ...limits, limit_reached } }, ...follows])
  })
