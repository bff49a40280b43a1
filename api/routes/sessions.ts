import { getSandbox, sandboxAddresses } from '../../db/sandboxes.ts'
import { requestRestart } from '../../db/restart.ts'
import { waitingForInput } from '../../db/permissions.ts'
import { abortTurns } from '../../db/queue.ts'
import { changeLimits } from '../../db/session-limits.ts'
import { firstText } from '../../db/thread.ts'
import { endSession } from '../../db/session-end.ts'
import { getSession, listSessions } from '../../db/sessions.ts'
import type { SessionRow } from '../../db/entities/session.ts'
import { AppError } from '../../domain/errors.ts'
import { bindTimeoutMs, waitReadyMaxMs } from '../../domain/limits.ts'
import { isId } from '../../domain/names.ts'
import { sessionEnded } from '../../telemetry/events/sessions.ts'
import { checkFirstMessage, checkLimits } from '../agent-input.ts'
import { createAgentSession, limitsOf } from '../create-session.ts'
import { cursorOf, NEXT_CURSOR, readCursor } from '../cursor.ts'
import type { ApiDeps } from '../deps.ts'
import { findLiveSession, findSession } from '../find.ts'
import { waitFor } from '../follow.ts'
import { interruptSoon } from '../interrupt.ts'
import { presentSession } from '../present/session.ts'
import { harnessOf } from '../terminal/kind.ts'
import { paceRelay } from '../relay-pace.ts'
import { route } from '../route.ts'
import type { Route } from '../route.ts'
import {
  Ok,
  Session,
  SessionCreate,
  SessionCreateQuery,
  SessionDeleted,
  SessionList,
  SessionListQuery,
  SessionPatch,
} from '../schemas/session.ts'
import { findAgent } from './agents.ts'

const AGENTS = '/api/v1/managed_agents/agents'
const BASE = '/api/v1/managed_agents/sessions'
const tag = 'sessions'

/** With its sandbox, its first words, and whether it waits for a person. */
export const inFull = async (deps: ApiDeps, session: SessionRow) => {
  const [sandbox, text, waiting] = await Promise.all([
    session.sandbox_id === null ? null : getSandbox(deps.sql, session.sandbox_id),
    session.title === null ? firstText(deps.sql, session.id) : null,
    waitingForInput(deps.sql, [session.id]),
  ])
  return presentSession(deps, session, { sandbox, firstText: text, needsInput: waiting.has(session.id) })
}

/** The session as soon as it has left `creating`, or as it is after the time. */
export const settled = async (
  deps: ApiDeps,
  session: SessionRow,
  { signal, timeoutMs }: { signal: AbortSignal; timeoutMs: number },
): Promise<SessionRow> => {
  const either = AbortSignal.any([signal, deps.drain])
  const found = await waitFor(deps, session.id, { signal: either, timeoutMs }, async () => {
    const now = await getSession(deps.sql, session.id)
    return now === null || now.status !== 'creating' ? { session: now } : null
  })
  return found?.session ?? (await getSession(deps.sql, session.id)) ?? session
}

const create = (deps: ApiDeps): Route => {
  const pace = paceRelay(deps)
  return route({
    method: 'post',
    path: `${AGENTS}/:id/session`,
    operationId: 'createSession',
    tag,
    summary: 'Open a session',
    description:
      'Replies `ready` with `spawn_mode: "warm"` when the pool had a sandbox, else `creating` with `spawn_mode: "cold"`. A repeat with the same `Idempotency-Key` and body replies with the same session.',
    query: SessionCreateQuery,
    body: SessionCreate,
    idempotent: true,
    replies: [{ status: 200, description: 'The session', schema: Session }],
    errors: ['not_found', 'conflict', 'rate_limited'],
    async handle(ctx, { params, query, body, idempotencyKey, signal }) {
      const answered = pace.begin()
      ctx.res.once('close', answered)
      if (ctx.res.closed) answered()
      // A known key is answered also when its agent has been deleted since; without a session of that key it is not found.
      const agent = await findAgent(deps, params.id, { deletedToo: idempotencyKey !== null })
      checkFirstMessage(deps, agent.harness_id, body)
      checkLimits(deps, agent.harness_id, limitsOf(agent, body))
      const request = { body, idempotencyKey, log: ctx.state.log }
      const { session, sandbox, replayed } = await createAgentSession(deps, agent, request)
      if (replayed) ctx.set('Idempotent-Replayed', 'true')
      // A repetition that overtakes the first request gets the same answer: that binds the sandbox just now.
      const binding = replayed && session.spawn_mode === 'warm'
      const timeoutMs = query.wait === 'ready' ? waitReadyMaxMs : binding ? bindTimeoutMs : 0
      if (timeoutMs === 0 || session.status !== 'creating') {
        ctx.body = presentSession(deps, session, {
          sandbox,
          firstText: body.initial_prompt ?? null,
          needsInput: false,
        })
        return
      }
      answered()
      ctx.body = await inFull(deps, await settled(deps, session, { signal, timeoutMs }))
    },
  })
}

const list = (deps: ApiDeps): Route =>
  route({
    method: 'get',
    path: BASE,
    operationId: 'listSessions',
    tag,
    summary: 'List sessions, the newest first',
    description: 'The header `X-Next-Cursor` of a full page leads to the next one.',
    query: SessionListQuery,
    replies: [
      {
        status: 200,
        description: 'A page of sessions',
        schema: SessionList,
        headers: NEXT_CURSOR,
      },
    ],
    async handle(ctx, { query }) {
      const after = query.cursor === undefined ? null : readCursor(query.cursor)
      if (query.agent_id !== undefined && !isId(query.agent_id)) {
        ctx.body = []
        return
      }
      const rows = await listSessions(deps.sql, {
        ...(query.agent_id === undefined ? {} : { agentId: query.agent_id }),
        ...(query.status === undefined ? {} : { status: query.status }),
        ...(query.needs_input === undefined ? {} : { needsInput: query.needs_input }),
        ...(after === null ? {} : { after }),
        limit: query.limit,
        offset: query.offset,
      })
      const last = rows.at(-1)
      if (last !== undefined && rows.length === query.limit) ctx.set('X-Next-Cursor', cursorOf(last))
      const ids = rows.map((row) => row.sandbox_id).filter((id) => id !== null)
      const [sandboxes, waiting] = await Promise.all([
        sandboxAddresses(deps.sql, ids),
        waitingForInput(
          deps.sql,
          rows.map(({ id }) => id),
        ),
      ])
      ctx.body = rows.map((row) =>
        presentSession(deps, row, {
          sandbox: sandboxes.get(row.sandbox_id ?? '') ?? null,
          needsInput: waiting.has(row.id),
        }),
      )
    },
  })

const get = (deps: ApiDeps): Route =>
  route({
    method: 'get',
    path: `${BASE}/:id`,
    operationId: 'getSession',
    tag,
    summary: 'One session',
    replies: [{ status: 200, description: 'The session', schema: Session }],
    errors: ['not_found'],
    async handle(ctx, { params }) {
      ctx.body = await inFull(deps, await findSession(deps, params.id))
    },
  })

const patch = (deps: ApiDeps): Route =>
  route({
    method: 'patch',
    path: `${BASE}/:id`,
    operationId: 'updateSession',
    tag,
    summary: 'Change the limits of a session',
    description:
      'A session that had reached its limit takes messages again when that is raised. One beyond its new limit takes no more after the turn that runs.',
    body: SessionPatch,
    replies: [{ status: 200, description: 'The session', schema: Session }],
    errors: ['not_found', 'gone'],
    async handle(ctx, { params, body }) {
      const session = await findSession(deps, params.id)
      const { id } = session
      checkLimits(deps, await harnessOf(deps, session), body)
      await changeLimits(deps.sql, id, body)
      ctx.body = await inFull(deps, await findSession(deps, id))
    },
  })

const remove = (deps: ApiDeps): Route =>
  route({
    method: 'delete',
    path: `${BASE}/:id`,
    operationId: 'deleteSession',
    tag,
    summary: 'End a session',
    description: 'In every state, also while it is created. One that has ended stays as it ended.',
    replies: [
      { status: 200, description: '`deleted`, or the status with which it had ended before', schema: SessionDeleted },
    ],
    errors: ['not_found'],
    async handle(ctx, { params }) {
      const session = await findSession(deps, params.id)
      const ended = await endSession(deps.sql, session.id, { status: 'dead', endReason: 'deleted' })
      deps.outbox.kick()
      if (ended?.changed === true)
        sessionEnded(
          { log: ctx.state.log, metrics: deps.metrics },
          { session_id: session.id, agent_id: session.agent_id, reason: 'deleted' },
        )
      ctx.body = {
        id: session.id,
        status: ended?.changed === true ? 'deleted' : (ended?.session.status ?? session.status),
      }
    },
  })

/** A session's own row is locked by whoever changes it, so what is decided here on an older copy is decided again there. */
const restart = (deps: ApiDeps): Route =>
  route({
    method: 'post',
    path: `${BASE}/:id/restart`,
    operationId: 'restartSession',
    tag,
    summary: 'Move a session to a new sandbox',
    description:
      'The conversation goes on, with the files as they were behind its last turn: see `checkpoints`. A turn that runs is interrupted.',
    replies: [{ status: 200, description: 'The session, on its way', schema: Session }],
    errors: ['not_found', 'conflict', 'gone'],
    async handle(ctx, { params }) {
      const session = await findLiveSession(deps, params.id)
      if (session.status === 'creating')
        throw new AppError('conflict', `session ${session.id} is still being created; delete it if it takes too long`)
      await requestRestart(deps.sql, session.id)
      deps.outbox.kick()
      ctx.body = await inFull(deps, await findSession(deps, session.id))
    },
  })

const abort = (deps: ApiDeps): Route =>
  route({
    method: 'post',
    path: `${BASE}/:id/abort`,
    operationId: 'abortSession',
    tag,
    summary: 'Stop what runs',
    description:
      'Cancels the running turn and those that wait behind it. The session stays. Answered at once: a harness that does not stop by itself is ended within 5 s.',
    replies: [{ status: 200, description: 'Stopping, or nothing was running', schema: Ok }],
    errors: ['not_found', 'gone'],
    async handle(ctx, { params }) {
      const session = await findLiveSession(deps, params.id)
      await interruptSoon(ctx, deps, await abortTurns(deps.sql, session.id))
      ctx.body = { ok: true }
    },
  })

export const sessionRoutes = (deps: ApiDeps): Route[] => [
  create(deps),
  list(deps),
  get(deps),
  patch(deps),
  remove(deps),
  restart(deps),
  abort(deps),
]
