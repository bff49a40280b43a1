import type { ApiDeps } from '../deps.ts'
import { findSession } from '../find.ts'
import { movesOf } from '../../db/moves.ts'
import { listTurnTexts, listTurns } from '../../db/thread.ts'
import { presentThread } from '../present/thread.ts'
import { presentLog } from '../present/log.ts'
import { route } from '../route.ts'
import type { Route } from '../route.ts'
import { Log, Message, MessageList, MessageSend, TurnsQuery } from '../schemas/message.ts'
import { streamTurn } from '../turn-stream.ts'
import { replyOf, sendMessage, turnOver } from '../turns.ts'

const BASE = '/api/v1/managed_agents/sessions/:id'
const tag = 'messages'
const queueing =
  'Messages run one at a time in the order in which they came; one sent before the session is ready runs when it is. A repeat with the same `Idempotency-Key` and body joins the first.'

const turnHeader = { 'Lap-Turn-Id': 'Id of the turn: of the message in the thread, and in the events of the log.' }

const send = (deps: ApiDeps): Route =>
  route({
    method: 'post',
    path: `${BASE}/message`,
    operationId: 'sendMessage',
    tag,
    summary: 'Send a message and wait for the reply',
    description: `${queueing} The turn goes on when the client goes away.`,
    body: MessageSend,
    idempotent: true,
    replies: [{ status: 200, description: 'The reply of the harness', schema: Message, headers: turnHeader }],
    errors: ['not_found', 'conflict', 'gone', 'rate_limited', 'upstream', 'unavailable'],
    async handle(ctx, { params, body, idempotencyKey, signal }) {
      const session = await findSession(deps, params.id)
      const turn = await sendMessage(ctx, deps, session, { body, idempotencyKey })
      ctx.body = replyOf(await turnOver(deps, turn, signal))
    },
  })

const sendStream = (deps: ApiDeps): Route =>
  route({
    method: 'post',
    path: `${BASE}/message_stream`,
    operationId: 'streamMessage',
    tag,
    summary: 'Send a message and watch the turn',
    description: `${queueing} Frames: {"type":"ready"}, {"type":"harness_event","seq","turn_id","event"}, then {"type":"done","reply"} or {"type":"error","message","code"}. To resume, open \`events\` with the last id.`,
    body: MessageSend,
    idempotent: true,
    replies: [
      {
        status: 200,
        description: 'Server-sent events of this turn',
        contentType: 'text/event-stream',
        headers: turnHeader,
      },
    ],
    errors: ['not_found', 'conflict', 'gone', 'rate_limited'],
    async handle(ctx, { params, body, idempotencyKey }) {
      const session = await findSession(deps, params.id)
      const turn = await sendMessage(ctx, deps, session, { body, idempotencyKey })
      // A repeated message may have run long ago: its events are looked for from the start.
      const repeated = ctx.response.get('Idempotent-Replayed') !== ''
      await streamTurn(ctx, deps, session, { turn, after: repeated ? 0 : session.last_seq })
    },
  })

const thread = (deps: ApiDeps): Route =>
  route({
    method: 'get',
    path: `${BASE}/messages`,
    operationId: 'listMessages',
    tag,
    summary: 'The conversation',
    description:
      'What was said, oldest first, from what is stored: also when the sandbox is gone. Of a long conversation the newest messages, up to `limit` and to about 16 MiB with attachments.',
    query: TurnsQuery,
    replies: [{ status: 200, description: 'Messages', schema: MessageList }],
    errors: ['not_found'],
    async handle(ctx, { params, query }) {
      const session = await findSession(deps, params.id)
      ctx.body = presentThread(session, await listTurns(deps.sql, session.id, query.limit))
    },
  })

const log = (deps: ApiDeps): Route =>
  route({
    method: 'get',
    path: `${BASE}/log`,
    operationId: 'getLog',
    tag,
    summary: 'What happened, for people',
    query: TurnsQuery,
    replies: [{ status: 200, description: 'Entries, oldest first', schema: Log }],
    errors: ['not_found'],
    async handle(ctx, { params, query }) {
      const session = await findSession(deps, params.id)
      // A session that never moved needs no look through its log.
      const [turns, moves] = await Promise.all([
        listTurnTexts(deps.sql, session.id, query.limit),
        session.attempt > 1 ? movesOf(deps.sql, session.id) : [],
      ])
      ctx.body = presentLog(session, turns, moves)
    },
  })

export const messageRoutes = (deps: ApiDeps): Route[] => [send(deps), sendStream(deps), thread(deps), log(deps)]
