import type { DeliveryRow, WebhookRow } from '../../db/entities/webhook.ts'
import { signingSecrets } from '../../db/webhooks.ts'
import type { Webhook, WebhookDelivery } from '../schemas/webhook.ts'

const iso = (time: Date | null): string | null => time?.toISOString() ?? null

/** A webhook without its secrets. */
export const presentWebhook = (row: WebhookRow): Webhook => {
  const [previous] = signingSecrets(row.secrets, new Date()).flatMap(({ until }) => until ?? [])
  return {
    id: row.id,
    url: row.url,
    events: row.events,
    agent_id: row.agent_id,
    description: row.description,
    enabled: row.enabled,
    disabled_reason: row.disabled_reason,
    disabled_at: iso(row.disabled_at),
    failing_since: iso(row.failing_since),
    previous_secret_expires_at: previous ?? null,
    created_at: row.created_at.toISOString(),
    updated_at: row.updated_at.toISOString(),
  }
}

export const presentDelivery = (row: DeliveryRow): WebhookDelivery => ({
  id: row.id,
  webhook_id: row.webhook_id,
  session_id: row.session_id,
  type: row.type as WebhookDelivery['type'],
  timestamp: row.event_at.toISOString(),
  data: row.data,
  status: row.status,
  error: row.error,
  attempt_count: row.attempt_count,
  attempts: row.attempts,
  next_attempt_at: iso(row.next_attempt_at),
  created_at: row.created_at.toISOString(),
  finished_at: iso(row.finished_at),
})
