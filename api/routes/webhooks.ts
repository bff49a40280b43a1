import { randomUUID } from 'node:crypto'
import { deleteWebhook, insertWebhook, listWebhooks, rotateSecret, updateWebhook } from '../../db/webhooks.ts'
import { AppError } from '../../domain/errors.ts'
import { isId } from '../../domain/names.ts'
import { newSecret } from '../../webhooks/signature.ts'
import type { ApiDeps } from '../deps.ts'
import { presentWebhook } from '../present/webhook.ts'
import { route } from '../route.ts'
import type { Route } from '../route.ts'
import {
  Webhook,
  WebhookCreate,
  WebhookList,
  WebhookListQuery,
  WebhookPatch,
  WebhookWithSecret,
} from '../schemas/webhook.ts'
import { checkWebhook, findWebhook } from '../webhook-input.ts'

const BASE = '/api/v1/managed_agents/webhooks'
const tag = 'webhooks'

const gone = (id: string): AppError => new AppError('not_found', `webhook ${id} not found`)

const create = (deps: ApiDeps): Route =>
  route({
    method: 'post',
    path: BASE,
    operationId: 'createWebhook',
    tag,
    summary: 'Have events sent to a URL',
    description: 'The reply is the only one with the secret, by which the receiver knows the sender.',
    body: WebhookCreate,
    replies: [{ status: 200, description: 'The webhook, with its secret', schema: WebhookWithSecret }],
    errors: ['conflict'],
    async handle(ctx, { body }) {
      await checkWebhook(deps, body)
      const secret = newSecret()
      const row = await insertWebhook(deps.sql, {
        id: randomUUID(),
        url: body.url,
        events: body.events,
        agent_id: body.agent_id ?? null,
        description: body.description ?? null,
        enabled: body.enabled ?? true,
        sealedSecret: deps.sealer.seal(secret),
      })
      ctx.body = { ...presentWebhook(row), secret }
    },
  })

const list = (deps: ApiDeps): Route =>
  route({
    method: 'get',
    path: BASE,
    operationId: 'listWebhooks',
    tag,
    summary: 'List webhooks, the oldest first',
    query: WebhookListQuery,
    replies: [{ status: 200, description: 'All webhooks', schema: WebhookList }],
    async handle(ctx, { query: { agent_id } }) {
      const known = agent_id === undefined || isId(agent_id)
      ctx.body = known ? (await listWebhooks(deps.sql, agent_id ?? null)).map(presentWebhook) : []
    },
  })

const get = (deps: ApiDeps): Route =>
  route({
    method: 'get',
    path: `${BASE}/:id`,
    operationId: 'getWebhook',
    tag,
    summary: 'One webhook',
    replies: [{ status: 200, description: 'The webhook', schema: Webhook }],
    errors: ['not_found'],
    async handle(ctx, { params }) {
      ctx.body = presentWebhook(await findWebhook(deps, params['id']))
    },
  })

const patch = (deps: ApiDeps): Route =>
  route({
    method: 'patch',
    path: `${BASE}/:id`,
    operationId: 'updateWebhook',
    tag,
    summary: 'Change a webhook',
    description:
      'Disabling it cancels what waits to be delivered; enabling it again tells of what happens from then on.',
    body: WebhookPatch,
    replies: [{ status: 200, description: 'The webhook', schema: Webhook }],
    errors: ['not_found'],
    async handle(ctx, { params, body }) {
      const { id } = await findWebhook(deps, params['id'])
      await checkWebhook(deps, body)
      const row = await updateWebhook(deps.sql, id, body)
      if (row === null) throw gone(id)
      deps.outbox.kick()
      ctx.body = presentWebhook(row)
    },
  })

const remove = (deps: ApiDeps): Route =>
  route({
    method: 'delete',
    path: `${BASE}/:id`,
    operationId: 'deleteWebhook',
    tag,
    summary: 'Delete a webhook',
    description: 'With its deliveries; what waits is not delivered any more.',
    replies: [{ status: 204, description: 'Deleted' }],
    errors: ['not_found'],
    async handle(ctx, { params }) {
      const { id } = await findWebhook(deps, params['id'])
      if (!(await deleteWebhook(deps.sql, id))) throw gone(id)
      deps.outbox.kick()
      ctx.status = 204
    },
  })

const rotate = (deps: ApiDeps): Route =>
  route({
    method: 'post',
    path: `${BASE}/:id/rotate_secret`,
    operationId: 'rotateWebhookSecret',
    tag,
    summary: 'Give a webhook a new secret',
    description:
      'For 24 hours the one before signs beside it, so that no event is refused until the receiver has the new one.',
    replies: [{ status: 200, description: 'The webhook, with its new secret', schema: WebhookWithSecret }],
    errors: ['not_found', 'rate_limited'],
    async handle(ctx, { params }) {
      const { id } = await findWebhook(deps, params['id'])
      const secret = newSecret()
      const row = await rotateSecret(deps.sql, id, { sealed: deps.sealer.seal(secret), now: new Date() })
      if (row === null) throw gone(id)
      ctx.body = { ...presentWebhook(row), secret }
    },
  })

export const webhookRoutes = (deps: ApiDeps): Route[] => [
  create(deps),
  list(deps),
  get(deps),
  patch(deps),
  remove(deps),
  rotate(deps),
]
