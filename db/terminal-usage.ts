import { isDeepStrictEqual } from 'node:util'
import { isEnded } from '../domain/session.ts'
import { limitReached, usageBetween, withTurnUsage } from '../domain/session-limits.ts'
import { TERMINAL_CONVERSATION } from '../domain/supervisor-protocol.ts'
import type { TurnUsage } from '../domain/turn.ts'
import type { SandboxRow } from './entities/sandbox.ts'
import { lockSession, writeEvents } from './session-end.ts'
import type { Sql } from './sql.ts'
import { applyLimits, limitMessage, setUsage } from './turn-end.ts'

/** Sandboxes in which people type into a program. */
export const terminalSandboxes = (sql: Sql): Promise<SandboxRow[]> =>
  sql.query(
    `select b.* from session s join sandbox b on b.id = s.sandbox_id
     where s.status = 'ready' and s.harness_session_id = $1 and b.state = 'claimed'`,
    [TERMINAL_CONVERSATION],
  )

/** Whether a sandbox is, or was, the terminal of a session, also of one that has ended. */
export const isOfTerminal = async (sql: Sql, sandboxId: string): Promise<boolean> =>
  (await sql.one(
    'select from sandbox b join session s on s.id = b.session_id where b.id = $1 and s.harness_session_id = $2',
    [sandboxId, TERMINAL_CONVERSATION],
  )) !== null

/**
 * Adds to a session what its sandbox has used since it was last asked, once however often it is told, and compares that with what the session may use.
 * @param sum all that this sandbox has used so far
 * @returns why the sandbox may ask no model any more; null: it may
 */
export const addUsageOutsideTurns = (
  sql: Sql,
  sandbox: { id: string; session_id: string },
  sum: TurnUsage,
): Promise<string | null> =>
  sql.tx(async (tx) => {
    const session = await lockSession(tx, sandbox.session_id)
    if (session === null) return null
    // Whoever writes this of a sandbox has its session locked.
    const known = await tx.one<Pick<SandboxRow, 'usage_outside_turns'>>(
      'select usage_outside_turns from sandbox where id = $1',
      [sandbox.id],
    )
    const more = usageBetween(known?.usage_outside_turns ?? null, sum)
    const usage = withTurnUsage(session.usage, more)
    if (!isDeepStrictEqual(usage, session.usage)) {
      await tx.query('update sandbox set usage_outside_turns = $2::jsonb where id = $1', [sandbox.id, sum])
      await setUsage(tx, session.id, usage)
      const news = isEnded(session.status) ? [] : await applyLimits(tx, { ...session, usage })
      if (news.length > 0) await writeEvents(tx, session, news)
    }
    const reached = limitReached(session, usage)
    return reached === null ? null : `${limitMessage(reached)}.`
  })
