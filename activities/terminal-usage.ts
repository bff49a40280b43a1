import type { SandboxRow } from '../db/entities/sandbox.ts'
import { addUsageOutsideTurns, isOfTerminal } from '../db/terminal-usage.ts'
import { errorText } from '../domain/errors.ts'
import type { ActivityDeps } from './deps.ts'

type Deps = Pick<ActivityDeps, 'sql' | 'supervisor' | 'log'>

/**
 * Asks a sandbox what was used in it outside of turns, adds to its session what is new, and lets the sandbox ask models for as long as the session may. One that
 * does not answer is asked again at the next look.
 * @returns false when it did not answer
 */
export const noteUsage = async (deps: Deps, sandbox: SandboxRow): Promise<boolean> => {
  const { id, session_id } = sandbox
  const health = await deps.supervisor.health(sandbox).catch(() => null)
  if (session_id === null || health?.usage_outside_turns === undefined) return false
  const refusal = await addUsageOutsideTurns(deps.sql, { id, session_id }, health.usage_outside_turns)
  if (refusal !== health.model_refusal) await deps.supervisor.refuseModel(sandbox, refusal)
  return true
}

/** The last look at a sandbox that is about to be removed, which waits for nothing else. */
export const noteLastUsage = async (deps: Deps, sandbox: SandboxRow): Promise<void> => {
  if (!(await isOfTerminal(deps.sql, sandbox.id))) return
  await noteUsage(deps, sandbox).catch((error: unknown) =>
    deps.log.warn({ sandbox_id: sandbox.id, reason: errorText(error) }, 'what a terminal used last was not added up'),
  )
}
