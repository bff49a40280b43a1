import { defineEntity, p } from '@mikro-orm/core'
import type { AttemptResult, DeliveryStatus, DisabledReason, WebhookEvent } from '../../domain/webhook.ts'

/** `until`: when it stops signing; null for the newest one, which stays. */
export type StoredSecret = { sealed: string; until: string | null }

export type WebhookRow = {
  id: string
  url: string
  events: WebhookEvent[]
  /** null: events of all agents. */
  agent_id: string | null
  description: string | null
  enabled: boolean
  disabled_reason: DisabledReason | null
  disabled_at: Date | null
  /** The first failure after the last success. */
  failing_since: Date | null
  /** The newest first. */
  secrets: StoredSecret[]
  created_at: Date
  updated_at: Date
}

export const Webhook = defineEntity({
  name: 'Webhook',
  tableName: 'webhook',
  properties: {
    id: p.uuid().primary(),
    url: p.text(),
    events: p.json<WebhookEvent[]>(),
    agent_id: p.uuid().nullable(),
    description: p.text().nullable(),
    enabled: p.boolean(),
    disabled_reason: p.text().nullable(),
    disabled_at: p.datetime(3).nullable(),
    failing_since: p.datetime(3).nullable(),
    secrets: p.json<StoredSecret[]>(),
    created_at: p.datetime(3),
    updated_at: p.datetime(3),
  },
})

/** One try. */
export type DeliveryAttempt = {
  at: string
  duration_ms: number
  result: AttemptResult
  status_code: number | null
  error: string | null
  response: string | null
}

/** One event for one webhook. */
export type DeliveryRow = {
  id: string
  webhook_id: string
  /** With `seq` the entry of the log that it tells of; null for a test. */
  session_id: string | null
  seq: number | null
  type: string
  data: Record<string, unknown>
  event_at: Date
  status: DeliveryStatus
  created_at: Date
  /** When it was made, or last sent again on request; `tries` counts from there. */
  tried_from: Date
  tries: number
  next_attempt_at: Date | null
  attempt_count: number
  /** The newest ones, in order. */
  attempts: DeliveryAttempt[]
  /** Why it is not delivered. */
  error: string | null
  finished_at: Date | null
}

export const WebhookDelivery = defineEntity({
  name: 'WebhookDelivery',
  tableName: 'webhook_delivery',
  properties: {
    id: p.uuid().primary(),
    webhook_id: p.uuid(),
    session_id: p.uuid().nullable(),
    seq: p.integer().nullable(),
    type: p.text(),
    data: p.json<Record<string, unknown>>(),
    event_at: p.datetime(3),
    status: p.text(),
    created_at: p.datetime(3),
    tried_from: p.datetime(3),
    tries: p.integer(),
    next_attempt_at: p.datetime(3).nullable(),
    attempt_count: p.integer(),
    attempts: p.json<DeliveryAttempt[]>(),
    error: p.text().nullable(),
    finished_at: p.datetime(3).nullable(),
  },
})
