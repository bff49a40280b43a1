import type { SandboxPurpose } from '../../domain/sandbox.ts'
import type { FailureCode } from '../../domain/session.ts'
import { seconds, type Telemetry } from '../telemetry.ts'

type SandboxIds = { sandbox_id: string; agent_id: string }

/** A sandbox is being started. */
export const sandboxProvisioning = ({ log }: Telemetry, fields: SandboxIds & { purpose: SandboxPurpose }): void =>
  log.info({ event: 'sandbox_provisioning', ...fields }, `sandbox provisioning (${fields.purpose})`)

/** A sandbox of the pool can be claimed. `duration_ms`: since its row. */
export const sandboxWarm = ({ log, metrics }: Telemetry, fields: SandboxIds & { duration_ms: number }): void => {
  metrics.poolProvision.inc({ result: 'success' })
  metrics.poolProvisionDuration.observe(seconds(fields.duration_ms))
  log.info({ event: 'sandbox_warm', ...fields }, `sandbox warm after ${Math.round(fields.duration_ms)} ms`)
}

/**
 * A sandbox did not start, or was lost. `stage`: `start`, `warm` (while it waited for a claim), `claim` (dead on arrival), `session`.
 */
export const sandboxFailed = (
  { log, metrics }: Telemetry,
  fields: SandboxIds & {
    purpose: SandboxPurpose
    stage: 'start' | 'warm' | 'claim' | 'session'
    code: FailureCode
    message: string
    session_id?: string | null
  },
): void => {
  if (fields.purpose === 'pool' && fields.stage === 'start') metrics.poolProvision.inc({ result: 'failed' })
  metrics.sandboxFailure.inc({ purpose: fields.purpose, reason: fields.code })
  if (fields.code === 'oom_killed') metrics.sandboxOomKilled.inc()
  log.warn({ event: 'sandbox_failed', ...fields }, `sandbox failed: ${fields.code}`)
}

/** A sandbox and everything of it was removed. `reason` for instance `session_ended`, `ttl`, `drift`, `drain`. */
export const sandboxRemoved = ({ log }: Telemetry, fields: SandboxIds & { reason?: string | null }): void =>
  log.info({ event: 'sandbox_removed', ...fields }, 'sandbox removed')
