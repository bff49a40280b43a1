import { listCheckpoints } from '../../db/checkpoints.ts'
import { waitReadyMaxMs } from '../../domain/limits.ts'
import type { ApiDeps } from '../deps.ts'
import { findSession } from '../find.ts'
import { forkAgentSession } from '../fork-session.ts'
import { presentCheckpoint } from '../present/checkpoint.ts'
import { route } from '../route.ts'
import type { Route } from '../route.ts'
import { CheckpointList, SessionFork } from '../schemas/checkpoint.ts'
import { Session, SessionCreateQuery } from '../schemas/session.ts'
import { findAgent } from './agents.ts'
import { inFull, settled } from './sessions.ts'

const BASE = '/api/v1/managed_agents/sessions/:id'
const tag = 'sessions'

const list = (deps: ApiDeps): Route =>
  route({
    method: 'get',
    path: `${BASE}/checkpoints`,
    operationId: 'listCheckpoints',
    tag,
    summary: 'Checkpoints of a session',
    description:
      'The newest first. One is taken a moment after each turn; the newest are kept, also for a while after the session has ended. A lost sandbox is replaced by one with the files of the newest; `fork` begins a session with any.',
    replies: [{ status: 200, description: 'The checkpoints', schema: CheckpointList }],
    errors: ['not_found'],
    async handle(ctx, { params }) {
      const { id } = await findSession(deps, params.id)
      ctx.body = (await listCheckpoints(deps.sql, id)).map(presentCheckpoint)
    },
  })

const fork = (deps: ApiDeps): Route =>
  route({
    method: 'post',
    path: `${BASE}/fork`,
    operationId: 'forkSession',
    tag,
    summary: 'Begin a session where another one was',
    description:
      'A new session of the same agent with the conversation and the files of a checkpoint; the other one is left as it is, and may have ended. Replies `creating`; `spawn_mode` is `warm` when the pool had a sandbox. `?wait=ready` waits up to 60 s for the checkpoint to be restored. 409 `no_checkpoint` when there is none. A repeat with the same `Idempotency-Key` and body replies with the same session.',
    query: SessionCreateQuery,
    body: SessionFork,
    idempotent: true,
    replies: [{ status: 200, description: 'The new session', schema: Session }],
    errors: ['not_found', 'conflict', 'rate_limited'],
    async handle(ctx, { params, query, body, idempotencyKey, signal }) {
      const source = await findSession(deps, params.id)
      // A known key is answered also when the agent has been deleted since.
      const agent = await findAgent(deps, source.agent_id, { deletedToo: idempotencyKey !== null })
      const request = { body, idempotencyKey, log: ctx.state.log }
      const { session, replayed } = await forkAgentSession(deps, { agent, sourceId: source.id }, request)
      deps.outbox.kick()
      if (replayed) ctx.set('Idempotent-Replayed', 'true')
      const waits = query.wait === 'ready' && session.status === 'creating'
      ctx.body = await inFull(
        deps,
        waits ? await settled(deps, session, { signal, timeoutMs: waitReadyMaxMs }) : session,
      )
    },
  })

export const checkpointRoutes = (deps: ApiDeps): Route[] => [list(deps), fork(deps)]
