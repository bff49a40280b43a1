import type { AttemptResult, DeliveryStatus, DisabledReason } from '../../domain/webhook.ts'
import { seconds, type Telemetry } from '../telemetry.ts'

/** An event was sent to a webhook, or could not be. `status`: of the delivery after it. */
export const webhookAttempted = (
  { log, metrics }: Telemetry,
  fields: {
    webhook_id: string
    delivery_id: string
    type: string
    attempt: number
    result: AttemptResult
    status_code: number | null
    status: DeliveryStatus
    duration_ms: number
    error: string | null
  },
): void => {
  const { result, status } = fields
  metrics.webhookAttempts.inc({ result })
  metrics.webhookAttemptDuration.observe(seconds(fields.duration_ms))
  if (status !== 'pending') metrics.webhookDeliveries.inc({ status })
  log[status === 'failed' ? 'warn' : 'info']({ event: 'webhook_attempted', ...fields }, `webhook: ${result}`)
}

/** A webhook sends nothing any more, and nobody has asked for that. */
export const webhookDisabled = (
  { log, metrics }: Telemetry,
  fields: { webhook_id: string; reason: DisabledReason },
): void => {
  metrics.webhooksDisabled.inc({ reason: fields.reason })
  log.warn({ event: 'webhook_disabled', ...fields }, `webhook disabled: ${fields.reason}`)
}
