import { getDelivery, insertTestDelivery, listDeliveries, redeliver } from '../../db/webhook-deliveries.ts'
import type { DeliveryRow, WebhookRow } from '../../db/entities/webhook.ts'
import { AppError } from '../../domain/errors.ts'
import { isId } from '../../domain/names.ts'
import { TEST_EVENT } from '../../domain/webhook.ts'
import { cursorOf, NEXT_CURSOR, readCursor } from '../cursor.ts'
import type { ApiDeps } from '../deps.ts'
import { presentDelivery } from '../present/webhook.ts'
import { route } from '../route.ts'
import type { Route } from '../route.ts'
import { DeliveryList, DeliveryListQuery, WebhookDelivery } from '../schemas/webhook.ts'
import { findWebhook } from '../webhook-input.ts'

const BASE = '/api/v1/managed_agents/webhooks/:id'
const tag = 'webhooks'

type Params = Record<string, string>

/** @throws AppError `not_found` */
const findDelivery = async (deps: ApiDeps, params: Params): Promise<{ webhook: WebhookRow; delivery: DeliveryRow }> => {
  const webhook = await findWebhook(deps, params['id'])
  const id = params['delivery_id'] ?? ''
  const delivery = isId(id) ? await getDelivery(deps.sql, webhook.id, id) : null
  if (delivery === null) throw new AppError('not_found', `delivery ${id} not found`)
  return { webhook, delivery }
}

const list = (deps: ApiDeps): Route =>
  route({
    method: 'get',
    path: `${BASE}/deliveries`,
    operationId: 'listWebhookDeliveries',
    tag,
    summary: 'What was sent to a webhook, or will be, the newest first',
    description: 'The header `X-Next-Cursor` of a full page leads to the next one.',
    query: DeliveryListQuery,
    replies: [{ status: 200, description: 'A page of deliveries', schema: DeliveryList, headers: NEXT_CURSOR }],
    errors: ['not_found'],
    async handle(ctx, { params, query }) {
      const { id } = await findWebhook(deps, params['id'])
      const { status, type, session_id, cursor, limit } = query
      if (session_id !== undefined && !isId(session_id)) {
        ctx.body = []
        return
      }
      const rows = await listDeliveries(deps.sql, id, {
        limit,
        ...(status === undefined ? {} : { status }),
        ...(type === undefined ? {} : { type }),
        ...(session_id === undefined ? {} : { sessionId: session_id }),
        ...(cursor === undefined ? {} : { after: readCursor(cursor) }),
      })
      const last = rows.at(-1)
      if (last !== undefined && rows.length === limit) ctx.set('X-Next-Cursor', cursorOf(last))
      ctx.body = rows.map(presentDelivery)
    },
  })

const get = (deps: ApiDeps): Route =>
  route({
    method: 'get',
    path: `${BASE}/deliveries/:delivery_id`,
    operationId: 'getWebhookDelivery',
    tag,
    summary: 'One delivery',
    replies: [{ status: 200, description: 'The delivery', schema: WebhookDelivery }],
    errors: ['not_found'],
    async handle(ctx, { params }) {
      ctx.body = presentDelivery((await findDelivery(deps, params)).delivery)
    },
  })

const again = (deps: ApiDeps): Route =>
  route({
    method: 'post',
    path: `${BASE}/deliveries/:delivery_id/redeliver`,
    operationId: 'redeliverWebhook',
    tag,
    summary: 'Send an event again',
    description:
      'Under the same `webhook-id`, with tries for another 24 hours; one that waits for its next try is tried now. 409 with `webhook_disabled` while the webhook is disabled.',
    replies: [{ status: 200, description: 'The delivery, on its way', schema: WebhookDelivery }],
    errors: ['not_found', 'conflict'],
    async handle(ctx, { params }) {
      const { webhook, delivery } = await findDelivery(deps, params)
      if (!webhook.enabled && delivery.type !== TEST_EVENT)
        throw new AppError('conflict', `webhook ${webhook.id} is disabled; enable it first (PATCH {"enabled": true})`, {
          reason: 'webhook_disabled',
        })
      const row = await redeliver(deps.sql, webhook.id, delivery.id)
      if (row === null) throw new AppError('not_found', `delivery ${delivery.id} not found`)
      deps.outbox.kick()
      ctx.body = presentDelivery(row)
    },
  })

const test = (deps: ApiDeps): Route =>
  route({
    method: 'post',
    path: `${BASE}/test`,
    operationId: 'testWebhook',
    tag,
    summary: 'Send a `webhook.test` event',
    description: 'Also to one that is disabled. Tried once; the delivery says how it went.',
    replies: [{ status: 200, description: 'The delivery, on its way', schema: WebhookDelivery }],
    errors: ['not_found'],
    async handle(ctx, { params }) {
      const { id } = await findWebhook(deps, params['id'])
      const row = await insertTestDelivery(deps.sql, id)
      deps.outbox.kick()
      ctx.body = presentDelivery(row)
    },
  })

export const deliveryRoutes = (deps: ApiDeps): Route[] => [list(deps), get(deps), again(deps), test(deps)]
