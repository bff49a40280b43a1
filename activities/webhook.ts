import { Context } from '@temporalio/activity'
import { cancelDelivery, dueDelivery, recordAttempt } from '../db/webhook-deliveries.ts'
import type { DueDelivery } from '../db/webhook-deliveries.ts'
import { signingSecrets } from '../db/webhooks.ts'
import { errorText } from '../domain/errors.ts'
import { provisionHeartbeatMs } from '../domain/limits.ts'
import type { DeliveryStatus, Outcome } from '../domain/webhook.ts'
import * as events from '../telemetry/events/webhooks.ts'
import { signedHeaders } from '../webhooks/signature.ts'
import type { ActivityDeps } from './deps.ts'
import { withHeartbeat } from './heartbeat.ts'

/** `gone`: there is nothing to deliver any more. `waitMs`: until the next try of one that is pending. */
export type DeliveryStep = { is: DeliveryStatus | 'gone'; attempts: number; error: string | null; waitMs: number }

/** The clocks of Temporal and of the database differ by a little: what is due so soon is due. */
const earlyMs = 250

const send = async (deps: ActivityDeps, due: DueDelivery): Promise<Outcome> => {
  const { id, type, event_at, data } = due
  const body = JSON.stringify({ type, timestamp: event_at.toISOString(), data })
  const now = new Date()
  let secrets: string[]
  try {
    secrets = signingSecrets(due.secrets, now).map(({ sealed }) => deps.sealer.open(sealed))
  } catch (error) {
    // Of another ENCRYPTION_KEY: the log of deliveries says so, and the next try finds the right one.
    const nothing = { statusCode: null, response: null, retryAfterMs: null }
    return { ...nothing, result: 'refused', error: `Not sent: ${errorText(error)}` }
  }
  const headers = {
    'content-type': 'application/json',
    'user-agent': 'LAP-Webhooks/1',
    ...signedHeaders({ id, body }, secrets, now),
  }
  return deps.webhooks.post({ url: due.url, headers, body, signal: Context.current().cancellationSignal })
}

/** Sends, then writes down what came of it: who dies in between sends again, under the same id. */
const tryOnce = async (deps: ActivityDeps, due: DueDelivery): Promise<DeliveryStep> => {
  const { id, webhook_id, type, attempt_count: attemptCount } = due
  const at = new Date()
  const outcome = await send(deps, due)
  const duration_ms = Date.now() - at.getTime()
  const { result, statusCode: status_code, error, response } = outcome
  const attempt = { at: at.toISOString(), duration_ms, result, status_code, error, response }
  const recorded = await recordAttempt(
    deps.sql,
    { id, webhookId: webhook_id, attemptCount, outcome, attempt },
    deps.random(),
  )
  // Somebody else has tried it meanwhile, or it was cancelled: look again.
  if (recorded === null) return { is: 'pending', attempts: attemptCount, error, waitMs: 1 }
  const { next, disabled } = recorded
  const ids = { webhook_id, delivery_id: id, type }
  events.webhookAttempted(deps, {
    ...ids,
    attempt: attemptCount + 1,
    result,
    status_code,
    status: next.status,
    duration_ms,
    error,
  })
  if (disabled !== null) {
    deps.outbox.kick()
    events.webhookDisabled(deps, { webhook_id, reason: disabled })
  }
  return { is: next.status, attempts: attemptCount + 1, error, waitMs: next.status === 'pending' ? next.waitMs : 0 }
}

const attempt = async (deps: ActivityDeps, id: string): Promise<DeliveryStep> => {
  const due = await dueDelivery(deps.sql, id)
  if (due === null) return { is: 'gone', attempts: 0, error: null, waitMs: 0 }
  if (!due.wanted) {
    await cancelDelivery(deps.sql, id)
    return { is: 'cancelled', attempts: due.attempt_count, error: null, waitMs: 0 }
  }
  if (due.due_ms > earlyMs) return { is: 'pending', attempts: due.attempt_count, error: null, waitMs: due.due_ms }
  return tryOnce(deps, due)
}

export const webhookActivities = (deps: ActivityDeps) => ({
  /** Tries a delivery if it is due, and says what is to be done next. */
  attemptDelivery: (deliveryId: string): Promise<DeliveryStep> =>
    withHeartbeat(provisionHeartbeatMs, () => attempt(deps, deliveryId)),
})
