import type { SandboxRow } from '../db/entities/sandbox.ts'
import { recordPoolFailure } from '../db/pool.ts'
import { sandboxFailed } from '../db/sandboxes.ts'
import { poolBreakerFailures } from '../domain/limits.ts'
import { backoff } from '../domain/pool.ts'
import type { SandboxFailure } from '../sandbox/driver.ts'
import * as events from '../telemetry/events/pool.ts'
import type { ActivityDeps } from './deps.ts'
import { announceFailure } from './sandbox.ts'

/**
 * A sandbox did not start. The row says why; one of the pool makes the agent's pool wait, and after too many in a row opens its breaker.
 * @returns whether it was this call that ended it
 */
export const noteStartFailure = async (
  deps: ActivityDeps,
  sandbox: SandboxRow,
  failure: SandboxFailure,
): Promise<boolean> => {
  const { agent_id } = sandbox
  const reason = `${failure.code}: ${failure.message}`
  // One transaction: the row's end wakes the pool, which must see that it has to wait.
  const noted = await deps.sql.tx(async (tx) => {
    if ((await sandboxFailed(tx, sandbox.id, failure, sandbox.epoch)) === null) return null
    const backoffMs = (failures: number): number => backoff(failures, deps.random())
    const counted = { reason, backoffMs, breakerFailures: poolBreakerFailures }
    return { state: sandbox.purpose === 'pool' ? await recordPoolFailure(tx, agent_id, counted) : null }
  })
  if (noted === null) return false
  announceFailure(deps, sandbox, failure, 'start')
  const { state } = noted
  if (state === null) return true
  if (state.backoff_until !== null)
    events.poolBackedOff(deps, { agent_id, failures: state.failures, until: state.backoff_until, reason })
  if (state.failures === poolBreakerFailures) events.poolBreakerOpened(deps, { agent_id, reason })
  return true
}
