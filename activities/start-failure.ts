import type { SandboxRow } from '../db/entities/sandbox.ts'
import { recordPoolFailure } from '../db/pool.ts'
import { poolBreakerFailures } from '../domain/limits.ts'
import { backoff } from '../domain/pool.ts'
import type { SandboxFailure } from '../sandbox/driver.ts'
import * as events from '../telemetry/events.ts'
import type { ActivityDeps } from './deps.ts'
import { noteFailure } from './sandbox.ts'

/**
 * A sandbox did not start. The row says why; one of the pool makes the agent's pool wait, and after too many in a row opens its breaker.
 * @returns whether it was this call that ended it
 */
export const noteStartFailure = async (
  deps: ActivityDeps,
  sandbox: SandboxRow,
  failure: SandboxFailure,
): Promise<boolean> => {
  if (!(await noteFailure(deps, sandbox, failure, 'start'))) return false
  if (sandbox.purpose !== 'pool') return true
  const { agent_id } = sandbox
  const reason = `${failure.code}: ${failure.message}`
  const state = await recordPoolFailure(deps.sql, agent_id, {
    reason,
    backoffMs: (failures) => backoff(failures, deps.random()),
    breakerFailures: poolBreakerFailures,
  })
  if (state.backoff_until !== null)
    events.poolBackedOff(deps, { agent_id, failures: state.failures, until: state.backoff_until, reason })
  if (state.failures === poolBreakerFailures) events.poolBreakerOpened(deps, { agent_id, reason })
  return true
}
