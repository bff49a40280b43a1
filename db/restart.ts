import { isEnded } from '../domain/session.ts'
import { sandboxFailed } from './sandboxes.ts'
import { lockSession } from './session-end.ts'
import { loadSessionPlan, wakeSession } from './sessions.ts'
import type { Sql } from './sql.ts'

/** Gives up the sandbox of a session; its workflow moves it to another one. */
const leave = async (tx: Sql, session: { id: string; sandbox_id: string | null }): Promise<void> => {
  const message = 'given up by a restart of the session'
  if (session.sandbox_id !== null)
    await sandboxFailed(tx, session.sandbox_id, { code: 'sandbox_lost', message, evidence: null })
  await tx.query('update session set restart_requested_at = null where id = $1', [session.id])
  await wakeSession(tx, session.id)
}

/** A restart whose checkpoint was taken, or cannot be. */
export const giveUpSandbox = (sql: Sql, sessionId: string): Promise<void> =>
  sql.tx(async (tx) => {
    const session = await lockSession(tx, sessionId)
    if (session === null || isEnded(session.status) || session.restart_requested_at === null) return
    await leave(tx, session)
  })

/**
 * Somebody wants a session in another sandbox: at once, or as soon as the checkpoint behind its last turn is stored. The same again changes nothing more, until the session
 * is in that sandbox. A turn that runs is interrupted.
 */
export const requestRestart = (sql: Sql, sessionId: string): Promise<void> =>
  sql.tx(async (tx) => {
    const session = await lockSession(tx, sessionId)
    if (session === null || isEnded(session.status) || session.restart_requested_at !== null) return
    if (session.bound_attempt < session.attempt) return
    const plan = await loadSessionPlan(tx, sessionId)
    if (plan?.checkpoint_at == null || plan.turn_status === 'running') return leave(tx, session)
    await tx.query('update session set restart_requested_at = now() where id = $1', [sessionId])
    await wakeSession(tx, sessionId)
  })
