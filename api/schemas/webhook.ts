import { z } from 'zod'
import { webhookAttemptsKept } from '../../domain/limits.ts'
import { DELIVERY_STATUSES, DISABLED_REASONS, TEST_EVENT, WEBHOOK_EVENTS } from '../../domain/webhook.ts'
import { Id, Json, Limit, strict, Time } from './common.ts'

const Events = z
  .array(z.enum(WEBHOOK_EVENTS, `must be one of ${WEBHOOK_EVENTS.join(', ')}`))
  .min(1, `must name at least one of ${WEBHOOK_EVENTS.join(', ')}`)
  .max(WEBHOOK_EVENTS.length, 'must name each event once')
  .refine((events) => new Set(events).size === events.length, 'must name each event once')

const Url = z
  .string()
  .max(2_000, 'must have at most 2000 characters')
  .refine((url) => ['https:', 'http:'].includes(URL.parse(url)?.protocol ?? ''), 'must be an https URL')
  .refine((url) => {
    const parsed = URL.parse(url)
    return (parsed?.username ?? '') === '' && (parsed?.password ?? '') === ''
  }, 'must not hold a user name or password: receivers know the sender by its signature')
  .describe(
    'Where events are sent to: a public https address, unless the settings allow others. Redirects are not followed.',
  )

const Description = z.string().max(1_000, 'must have at most 1000 characters').nullable()
const AgentId = z.string().nullable().describe('Only events of this agent’s sessions; null: of all.')

export const WebhookCreate = strict({
  url: Url,
  events: Events,
  agent_id: AgentId.optional(),
  description: Description.optional(),
  enabled: z.boolean().optional(),
}).meta({ id: 'WebhookCreate' })
export type WebhookCreate = z.output<typeof WebhookCreate>

export const WebhookPatch = strict({
  url: Url.exactOptional(),
  events: Events.exactOptional(),
  agent_id: AgentId.exactOptional(),
  description: Description.exactOptional(),
  enabled: z
    .boolean()
    .exactOptional()
    .describe('true also enables one again that was disabled because of its failures.'),
}).meta({ id: 'WebhookPatch', description: 'What is left out stays. It holds from the next try on.' })
export type WebhookPatch = z.output<typeof WebhookPatch>

const fields = {
  id: Id,
  url: z.string(),
  events: z.array(z.enum(WEBHOOK_EVENTS)),
  agent_id: Id.nullable(),
  description: z.string().nullable(),
  enabled: z.boolean(),
  disabled_reason: z
    .enum(DISABLED_REASONS)
    .nullable()
    .describe(
      '`request`: somebody wanted it; `gone`: the receiver answered 410; `failing`: it has taken nothing for days.',
    ),
  disabled_at: Time.nullable(),
  failing_since: Time.nullable().describe('The first failed try after the last success.'),
  previous_secret_expires_at: Time.nullable().describe('Until then a secret before the last rotation signs, too.'),
  created_at: Time,
  updated_at: Time,
}

export const Webhook = z.object(fields).meta({ id: 'Webhook' })
export type Webhook = z.output<typeof Webhook>

export const WebhookWithSecret = z
  .object({
    ...fields,
    secret: z.string().describe('Shown this once. `whsec_` and base64, as libraries of Standard Webhooks take it.'),
  })
  .meta({ id: 'WebhookWithSecret' })

export const WebhookList = z.array(Webhook).meta({ id: 'WebhookList' })
export const WebhookListQuery = z.object({ agent_id: z.string().optional().describe('Those for this agent alone.') })

const DELIVERED_TYPES = [...WEBHOOK_EVENTS, TEST_EVENT] as const

export const WebhookDelivery = z
  .object({
    id: Id.describe('Sent as `webhook-id`, the same with each try.'),
    webhook_id: Id,
    session_id: Id.nullable(),
    type: z.enum(DELIVERED_TYPES),
    timestamp: Time.describe('When it happened.'),
    data: Json,
    status: z
      .enum(DELIVERY_STATUSES)
      .describe('`pending` until it is `delivered`, has `failed`, or its webhook was disabled (`cancelled`).'),
    error: z.string().nullable().describe('Why it is not delivered; of the last try.'),
    attempt_count: z.int(),
    attempts: z
      .array(
        z.object({
          at: Time,
          duration_ms: z.int(),
          result: z.enum(['success', 'status', 'timeout', 'connection', 'refused']),
          status_code: z.int().nullable(),
          error: z.string().nullable(),
          response: z.string().nullable().describe('Begin of the answer to a try that failed.'),
        }),
      )
      .describe(`The newest ${webhookAttemptsKept}, in order.`),
    next_attempt_at: Time.nullable(),
    created_at: Time,
    finished_at: Time.nullable(),
  })
  .meta({ id: 'WebhookDelivery' })
export type WebhookDelivery = z.output<typeof WebhookDelivery>

export const DeliveryList = z.array(WebhookDelivery).meta({ id: 'WebhookDeliveryList' })

export const DeliveryListQuery = z.object({
  status: z.enum(DELIVERY_STATUSES, `must be one of ${DELIVERY_STATUSES.join(', ')}`).optional(),
  type: z.enum(DELIVERED_TYPES, `must be one of ${DELIVERED_TYPES.join(', ')}`).optional(),
  session_id: z.string().optional(),
  limit: Limit,
  cursor: z.string().max(200).optional().describe('From the `X-Next-Cursor` header of the page before.'),
})
