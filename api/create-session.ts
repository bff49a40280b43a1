import { randomUUID } from 'node:crypto'
import { claimForSession, claimWasDead, createSession } from '../db/claims.ts'
import type { Claimed, NewSession } from '../db/claims.ts'
import type { AgentRow } from '../db/entities/agent.ts'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import type { SessionRow } from '../db/entities/session.ts'
import { getSandbox, sandboxFailed } from '../db/sandboxes.ts'
import { getSession } from '../db/sessions.ts'
import { bodyHash, startTurn } from '../db/turns.ts'
import { errorText, isAppError } from '../domain/errors.ts'
import { deadOnArrivalMax } from '../domain/limits.ts'
import type { SessionLimits } from '../domain/session-limits.ts'
import { bindSession } from '../sandbox/bind.ts'
import { isSupervisorUnreachable } from '../sandbox/supervisor-calls.ts'
import { claimed } from '../telemetry/events/pool.ts'
import { sandboxFailed as sandboxFailedEvent } from '../telemetry/events/sandboxes.ts'
import { sessionCreated, sessionReady } from '../telemetry/events/sessions.ts'
import type { Logger } from '../telemetry/log.ts'
import { hashOf, sealEnv } from './agent-input.ts'
import type { ApiDeps } from './deps.ts'
import type { SessionCreate } from './schemas/session.ts'
import { initialParts } from './session-input.ts'

type Request = { body: SessionCreate; idempotencyKey: string | null; log: Logger }

/** What is asked of the pool for a session of this agent. */
export const claimOf = (deps: ApiDeps, agent: AgentRow): NewSession['claim'] => ({
  templateHash: hashOf(deps, agent),
  poolSize: deps.config.pool.size,
  recentAgentHours: deps.config.pool.recentAgentHours,
})

/** Those of the request, else of the agent. */
export const limitsOf = (agent: AgentRow, body: SessionCreate): SessionLimits => ({
  max_turns: body.max_turns === undefined ? agent.max_turns : body.max_turns,
  max_cost_usd: body.max_cost_usd === undefined ? agent.max_cost_usd : body.max_cost_usd,
})

const newSession = (deps: ApiDeps, agent: AgentRow, { body, idempotencyKey }: Request): NewSession => {
  const { config } = deps
  const parts = initialParts(body.initial_prompt, body.initial_attachments)
  return {
    id: randomUUID(),
    agentId: agent.id,
    title: body.title ?? null,
    request: { env_vars: sealEnv(deps, body.env_vars ?? {}), mcp_servers: agent.mcp_servers },
    model: agent.model,
    prompt: agent.prompt,
    idempotencyKey,
    bodyHash: idempotencyKey === null ? null : bodyHash({ agent_id: agent.id, ...body }),
    idleTimeoutMs: config.session.idleTimeoutMs,
    maxAgeMs: config.session.maxAgeMs,
    initialTurn: parts.length === 0 ? null : { id: randomUUID(), parts },
    origin: null,
    createdBy: 'ui',
    permissions: agent.permissions,
    limits: limitsOf(agent, body),
    claim: claimOf(deps, agent),
  }
}

type Binding = { request: NewSession; log: Logger }

/** A claimed sandbox that does not answer is given up, and its claim counts as a miss. */
const giveUp = async (deps: ApiDeps, { log }: Binding, sandbox: SandboxRow, error: unknown): Promise<void> => {
  const message = `did not answer when it was claimed: ${errorText(error)}`
  await sandboxFailed(deps.sql, sandbox.id, { code: 'sandbox_lost', message, evidence: null }, sandbox.epoch)
  sandboxFailedEvent(
    { log, metrics: deps.metrics },
    {
      sandbox_id: sandbox.id,
      agent_id: sandbox.agent_id,
      purpose: sandbox.purpose,
      stage: 'claim',
      code: 'sandbox_lost',
      message,
      session_id: sandbox.session_id,
    },
  )
}

/** What a dead sandbox looks like; anything else is a fault of ours and costs no sandbox. */
const isDead = (error: unknown): boolean =>
  isSupervisorUnreachable(error) || (isAppError(error) && (error.code === 'upstream' || error.code === 'conflict'))

/**
 * Binds the claimed sandbox, or the next one when it is dead, and makes the session ready. What is not done here, because the process died
 * or no sandbox answered, the session's workflow does.
 */
const bindClaimed = async (deps: ApiDeps, binding: Binding, first: Claimed): Promise<Claimed> => {
  let at = first
  for (let dead = 1; at.sandbox !== null; dead++) {
    const { session, sandbox } = at
    try {
      const bound = await bindSession({ ...deps, litellm: deps.config.litellm }, { session, sandbox })
      const now = bound.status === 'ready' ? bound.session : await getSession(deps.sql, session.id)
      return { ...at, session: now ?? session }
    } catch (error) {
      if (!isDead(error)) throw error
      await giveUp(deps, binding, sandbox, error)
    }
    const again = dead < deadOnArrivalMax
    const next = again ? await claimForSession(deps.sql, session.id, binding.request.claim) : null
    // One in the making is the workflow's, which came first: it is not there to be bound yet.
    const retried = next?.sandbox?.state === 'claimed'
    const cold = await claimWasDead(deps.sql, { sessionId: session.id, sandboxId: sandbox.id, retried })
    if (retried) at = next
    else
      at = { session: cold ?? (await getSession(deps.sql, session.id)) ?? session, sandbox: null, outcome: 'miss_dead' }
  }
  return at
}

/** The first message of a session that is ready begins at once; the workflow finds it running. */
const startFirstTurn = async (
  deps: ApiDeps,
  { request, log }: Binding,
  { session, sandbox }: Claimed,
): Promise<void> => {
  const turn = request.initialTurn
  if (turn === null || sandbox === null || session.status !== 'ready') return
  try {
    // It may have been changed since it was written.
    const started = await startTurn(deps.sql, turn.id, sandbox.id)
    if (started === null) return
    await deps.supervisor.startTurn(sandbox, { turn_id: turn.id, parts: started.parts, model: session.model })
  } catch (error) {
    log.debug({ session_id: session.id, reason: errorText(error) }, 'the first turn was not started early')
  }
}

/** One line and one count for each thing that a create has done. */
export const report = (deps: ApiDeps, log: Logger, { session, sandbox, outcome }: Claimed): void => {
  const telemetry = { log, metrics: deps.metrics }
  const { spawn_mode, attempt } = session
  const ids = { session_id: session.id, agent_id: session.agent_id }
  sessionCreated(telemetry, { ...ids, spawn_mode, title: session.title })
  claimed(telemetry, { ...ids, outcome, sandbox_id: sandbox?.id ?? null, attempt })
  if (session.ready_at === null || sandbox === null) return
  const duration_ms = session.ready_at.getTime() - session.created_at.getTime()
  sessionReady(telemetry, { ...ids, spawn_mode, sandbox_id: sandbox.id, attempt, duration_ms, phases: session.phases })
}

/**
 * Makes a session, with a sandbox from the pool when there is one. Needs no Temporal: the workflow follows by the outbox.
 * The caller wakes the relay of the outbox.
 * @returns `replayed` when the idempotency key was known
 * @throws AppError `conflict` (key used with another body), `rate_limited` (full)
 */
export const createAgentSession = async (
  deps: ApiDeps,
  agent: AgentRow,
  input: Request,
): Promise<{ session: SessionRow; sandbox: SandboxRow | null; replayed: boolean }> => {
  const request = newSession(deps, agent, input)
  const created = await createSession(deps.sql, request)
  if (created.existing) {
    const { session } = created
    const sandbox = session.sandbox_id === null ? null : await getSandbox(deps.sql, session.sandbox_id)
    return { session, sandbox, replayed: true }
  }
  const binding = { request, log: input.log }
  // The session is there whatever happens now, so its id is the answer: the workflow binds it if this cannot.
  const at = await bindClaimed(deps, binding, created).catch((error: unknown) => {
    input.log.error({ err: error, session_id: created.session.id }, 'the session was left to its workflow to bind')
    return created
  })
  report(deps, input.log, at)
  void startFirstTurn(deps, binding, at)
  return { session: at.session, sandbox: at.sandbox, replayed: false }
}
