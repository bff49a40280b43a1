import { deleteQueued, editQueued, listQueue, sendNow } from '../../db/queue.ts'
import type { QueuedTurn } from '../../db/queue.ts'
import { AppError } from '../../domain/errors.ts'
import { isId } from '../../domain/names.ts'
import type { ApiDeps } from '../deps.ts'
import { findSession } from '../find.ts'
import { interruptSoon } from '../interrupt.ts'
import { route } from '../route.ts'
import type { Route } from '../route.ts'
import { MessageDeleted, MessagePatch, Queue, QueuedMessage, SentNow } from '../schemas/message.ts'
import { changedParts } from '../session-input.ts'

const BASE = '/api/v1/managed_agents/sessions/:id'
const tag = 'messages'
const late =
  'A message that has begun is left as it is: 409 with `turn_started`, or `turn_over` when it is done, was cancelled, or was deleted.'

const present = (turn: QueuedTurn): QueuedMessage => ({
  id: turn.id,
  status: turn.status,
  parts: turn.parts,
  created_at: turn.created_at.toISOString(),
  edited_at: turn.edited_at?.toISOString() ?? null,
})

/** @throws AppError `not_found` */
const idsOf = async (deps: ApiDeps, params: Record<string, string>) => {
  const session = await findSession(deps, params['id'])
  const turnId = params['turn_id'] ?? ''
  if (!isId(turnId)) throw new AppError('not_found', `message ${turnId} not found`)
  return { sessionId: session.id, turnId }
}

const list = (deps: ApiDeps): Route =>
  route({
    method: 'get',
    path: `${BASE}/queue`,
    operationId: 'listQueue',
    tag,
    summary: 'Messages that wait',
    description: 'In the order in which they will run, behind the turn that runs. At most 100 wait.',
    replies: [{ status: 200, description: 'The queue', schema: Queue }],
    errors: ['not_found'],
    async handle(ctx, { params }) {
      const session = await findSession(deps, params.id)
      ctx.body = (await listQueue(deps.sql, session.id)).map(present)
    },
  })

const edit = (deps: ApiDeps): Route =>
  route({
    method: 'patch',
    path: `${BASE}/messages/:turn_id`,
    operationId: 'editMessage',
    tag,
    summary: 'Change a message that waits',
    description: late,
    body: MessagePatch,
    replies: [{ status: 200, description: 'The message', schema: QueuedMessage }],
    errors: ['not_found', 'conflict', 'gone'],
    async handle(ctx, { params, body }) {
      ctx.body = present(await editQueued(deps.sql, await idsOf(deps, params), changedParts(body)))
    },
  })

const remove = (deps: ApiDeps): Route =>
  route({
    method: 'delete',
    path: `${BASE}/messages/:turn_id`,
    operationId: 'deleteMessage',
    tag,
    summary: 'Take back a message that waits',
    description: `It leaves the conversation. ${late}`,
    replies: [{ status: 200, description: 'Deleted, now or before', schema: MessageDeleted }],
    errors: ['not_found', 'conflict', 'gone'],
    async handle(ctx, { params }) {
      const { id } = await deleteQueued(deps.sql, await idsOf(deps, params))
      ctx.body = { id, status: 'deleted' }
    },
  })

const now = (deps: ApiDeps): Route =>
  route({
    method: 'post',
    path: `${BASE}/messages/:turn_id/send_now`,
    operationId: 'sendMessageNow',
    tag,
    summary: 'Run a waiting message next, and stop what runs',
    description:
      'Steers the session: the running turn ends as `cancelled`, this message runs next, the others stay behind it. Repeated, it changes nothing more. 409 with `turn_over` when the message is over.',
    replies: [{ status: 200, description: 'It runs, or runs next', schema: SentNow }],
    errors: ['not_found', 'conflict', 'gone'],
    async handle(ctx, { params }) {
      const { turn, interrupted } = await sendNow(deps.sql, await idsOf(deps, params))
      await interruptSoon(ctx, deps, interrupted)
      ctx.body = { id: turn.id, status: turn.status, interrupted_turn_id: interrupted?.turnId ?? null }
    },
  })

export const queueRoutes = (deps: ApiDeps): Route[] => [list(deps), edit(deps), remove(deps), now(deps)]
