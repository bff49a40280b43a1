import type { ClaimOutcome } from '../../domain/session.ts'
import type { Telemetry } from '../telemetry.ts'

/** The pool was asked for a sandbox. */
export const claimed = (
  { log, metrics }: Telemetry,
  fields: {
    session_id: string
    agent_id: string
    outcome: ClaimOutcome
    sandbox_id: string | null
    sandbox_age_ms?: number | null
    attempt?: number
  },
): void => {
  metrics.poolClaim.inc({ outcome: fields.outcome })
  const hit = fields.outcome === 'hit' || fields.outcome === 'hit_shared'
  ;(hit ? metrics.poolHit : metrics.poolMiss).inc()
  log.info({ event: 'claimed', ...fields }, `claim: ${fields.outcome}`)
}

/** @param fields.stale warm ones that were taken out because of their age or an older template */
export const poolDecided = (
  { log, metrics }: Telemetry,
  fields: {
    agent_id: string
    decision: string
    reason: string
    share: number
    warm: number
    provisioning: number
    stale: number
  },
): void => {
  metrics.reconcileWarmStale.inc(fields.stale)
  log.debug({ event: 'pool_decided', ...fields }, `pool: ${fields.decision}`)
}

export const poolBackedOff = (
  { log }: Telemetry,
  fields: { agent_id: string; failures: number; until: Date; reason: string },
): void =>
  log.warn({ event: 'pool_backed_off', ...fields }, `pool backs off after ${fields.failures} failures in a row`)

export const poolBreakerOpened = ({ log, metrics }: Telemetry, fields: { agent_id: string; reason: string }): void => {
  metrics.poolBreaker.inc()
  log.error({ event: 'pool_breaker_opened', ...fields }, 'pool stopped: the template keeps failing')
}
