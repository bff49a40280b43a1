import { randomUUID } from 'node:crypto'
import { getAgentAny } from '../db/agents.ts'
import { assignSandbox, claimForSession } from '../db/claims.ts'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import type { SessionRow } from '../db/entities/session.ts'
import { dueEnd, endIfDue, litterOfSession } from '../db/flow.ts'
import { getSandbox } from '../db/sandboxes.ts'
import { endSession } from '../db/session-end.ts'
import { getSession, hasWorked, loadSessionPlan } from '../db/sessions.ts'
import { endTurn, openTurns } from '../db/turns.ts'
import { AppError } from '../domain/errors.ts'
import { sandboxName } from '../domain/names.ts'
import type { SandboxState } from '../domain/sandbox.ts'
import { isEnded } from '../domain/session.ts'
import type { FailureCode, SessionStatus } from '../domain/session.ts'
import { claimed as claimedEvent } from '../telemetry/events/pool.ts'
import { sandboxProvisioning } from '../telemetry/events/sandboxes.ts'
import { sessionEnded, sessionFailed } from '../telemetry/events/sessions.ts'
import { turnFinished } from '../telemetry/events/turns.ts'
import { templateNow } from './deps.ts'
import type { ActivityDeps } from './deps.ts'

/** All that decides what a session does next. Moments are milliseconds since 1970. */
export type SessionView = {
  status: SessionStatus
  agentId: string
  title: string | null
  endReason: string | null
  attempt: number
  /** Equal to `attempt` once the harness has been told who it works for. */
  boundAttempt: number
  /** `toMark`: it is in use, and its driver wants to know. */
  sandbox: { id: string; name: string; state: SandboxState; toMark: boolean } | null
  turn: { id: string; status: 'queued' | 'running'; sandboxId: string | null } | null
  idleAt: number
  maxAgeAt: number
  creatingDeadlineAt: number
  /** When a checkpoint is to be taken behind the last turn; without it none is due. */
  checkpointAt?: number
  /** Somebody wants it in another sandbox. */
  restart?: true
  /** Sandboxes of the session that are to be removed. */
  litter: string[]
}

/** `ended`: nobody wants it any more; `provisioning`: made for this session, to be started; `claimed`: started, to be bound. */
export type Obtained = { is: 'ended' } | { is: 'provisioning' | 'claimed'; sandboxId: string; attempt: number }

const viewOf = async (deps: ActivityDeps, sessionId: string): Promise<SessionView | null> => {
  const [plan, litter] = await Promise.all([loadSessionPlan(deps.sql, sessionId), litterOfSession(deps.sql, sessionId)])
  if (plan === null) return null
  const { sandbox_id: id, sandbox_name: name, sandbox_state: state, turn_id: turn, turn_status: status } = plan
  const bound = state === 'claimed' && plan.bound_attempt === plan.attempt
  const marks = deps.driver.markClaimed !== null
  return {
    status: plan.status,
    agentId: plan.agent_id,
    title: plan.title,
    endReason: plan.end_reason,
    attempt: plan.attempt,
    boundAttempt: plan.bound_attempt,
    sandbox: id === null || name === null || state === null ? null : { id, name, state, toMark: bound && marks },
    turn:
      turn === null || (status !== 'queued' && status !== 'running')
        ? null
        : { id: turn, status, sandboxId: plan.turn_sandbox_id },
    idleAt: plan.idle_at.getTime(),
    maxAgeAt: plan.max_age_at.getTime(),
    creatingDeadlineAt: plan.creating_deadline_at.getTime(),
    ...(plan.checkpoint_at === null ? {} : { checkpointAt: plan.checkpoint_at.getTime() }),
    ...(plan.restart ? { restart: true } : {}),
    litter,
  }
}

/** A turn whose sandbox is not there any more did not end by itself; it may be sent again, and is never run twice unasked. */
const interruptTurns = async (deps: ActivityDeps, session: SessionRow): Promise<void> => {
  for (const turn of await openTurns(deps.sql, session.id)) {
    if (turn.status !== 'running') continue
    const sandbox = turn.sandbox_id === null ? null : await getSandbox(deps.sql, turn.sandbox_id)
    if (sandbox?.state === 'claimed' && sandbox.id === session.sandbox_id) continue
    const error = { code: 'sandbox_lost', message: 'The sandbox was lost while this message was worked on' }
    const end = { turnId: turn.id, status: 'interrupted' as const, reply: null, error, usage: null }
    if (await endTurn(deps.sql, session.id, end))
      turnFinished(deps, {
        session_id: session.id,
        turn_id: turn.id,
        status: 'interrupted',
        duration_ms: turn.started_at === null ? null : Date.now() - turn.started_at.getTime(),
        error_code: 'sandbox_lost',
      })
  }
}

/** A warm one for a session that has none. @returns null on a miss; `ended` when nobody wants it any more */
const claimWarm = async (deps: ActivityDeps, before: SessionRow, templateHash: string): Promise<Obtained | null> => {
  const { size: poolSize, recentAgentHours } = deps.config.pool
  const claim = await claimForSession(deps.sql, before.id, { templateHash, poolSize, recentAgentHours })
  if (claim === null) return { is: 'ended' }
  if (claim.sandbox === null) return null
  const { attempt } = claim.session
  if (attempt > before.attempt) {
    const ids = { session_id: before.id, agent_id: before.agent_id, sandbox_id: claim.sandbox.id }
    claimedEvent(deps, { ...ids, outcome: claim.outcome, attempt })
    deps.outbox.kick()
  }
  return obtained(claim.session, claim.sandbox)
}

/** Finds the sandbox that the session has, claims a warm one, or writes the row of a cold one. Repeated, it answers the same. */
const obtain = async (deps: ActivityDeps, sessionId: string, warm: boolean): Promise<Obtained> => {
  const before = await getSession(deps.sql, sessionId)
  if (before === null || isEnded(before.status)) return { is: 'ended' }
  await interruptTurns(deps, before)
  const agent = await getAgentAny(deps.sql, before.agent_id)
  if (agent === null) throw new AppError('not_found', `agent ${before.agent_id} not found`)
  const { hash: templateHash } = templateNow(deps, agent)
  const claimed = warm ? await claimWarm(deps, before, templateHash) : null
  if (claimed !== null) return claimed
  const id = randomUUID()
  const { harness_id: harnessId, harness_image: image } = agent
  const made = { id, name: sandboxName(id), templateHash, harnessId, image, driver: deps.driver.kind }
  const assigned = await assignSandbox(deps.sql, sessionId, made)
  if (assigned === null) return { is: 'ended' }
  if (assigned.sandbox.id === id)
    sandboxProvisioning(deps, { sandbox_id: id, agent_id: before.agent_id, purpose: 'session' })
  return obtained(assigned.session, assigned.sandbox)
}

const obtained = (session: SessionRow, sandbox: SandboxRow): Obtained => ({
  is: sandbox.state === 'claimed' ? 'claimed' : 'provisioning',
  sandboxId: sandbox.id,
  attempt: session.attempt,
})

const fail = async (
  deps: ActivityDeps,
  sessionId: string,
  failure: { code: FailureCode; reason: string },
): Promise<void> => {
  const before = await getSession(deps.sql, sessionId)
  const ended = await endSession(deps.sql, sessionId, { status: 'failed', ...failure })
  deps.outbox.kick()
  if (ended?.changed !== true) return
  const { agent_id, spawn_mode } = ended.session
  const starting = before?.status === 'creating'
  sessionFailed(deps, { session_id: sessionId, agent_id, spawn_mode, starting, ...failure })
}

/**
 * A harness that speaks with a model works, also where the platform knows of no turn: in a terminal nobody types while it does. Asked only when a session is about to
 * end of idleness, so that looking costs nothing; a sandbox that does not answer keeps none alive.
 */
const noteWork = async (deps: ActivityDeps, sessionId: string): Promise<void> => {
  const session = await getSession(deps.sql, sessionId)
  if (session === null || session.sandbox_id === null) return
  const sandbox = await getSandbox(deps.sql, session.sandbox_id)
  if (sandbox?.state !== 'claimed') return
  const health = await deps.supervisor.health(sandbox).catch(() => null)
  if (health?.model_idle_ms != null) await hasWorked(deps.sql, sessionId, health.model_idle_ms)
}

/** Ends the session if its idle or age deadline has passed. @returns whether it ended */
export const expire = async (deps: ActivityDeps, sessionId: string): Promise<boolean> => {
  const due = await dueEnd(deps.sql, sessionId)
  // A session that becomes idle from here on has not been asked: the next look asks it.
  if (due === null) return false
  if (due === 'idle_timeout') await noteWork(deps, sessionId)
  const ended = await endIfDue(deps.sql, sessionId)
  if (ended?.changed !== true) return false
  deps.outbox.kick()
  const { agent_id, end_reason } = ended.session
  if (end_reason !== null) sessionEnded(deps, { session_id: sessionId, agent_id, reason: end_reason })
  return true
}

export const sessionActivities = (deps: ActivityDeps) => ({
  /** @returns null when there is no such session */
  loadSession: (sessionId: string): Promise<SessionView | null> => viewOf(deps, sessionId),
  /** @param options.warm false: a warm one is not asked for again */
  obtainSandbox: (sessionId: string, options: { warm: boolean }): Promise<Obtained> =>
    obtain(deps, sessionId, options.warm),
  endIfDue: (sessionId: string): Promise<boolean> => expire(deps, sessionId),
  /** The workflow was cancelled by an operator: the same as deleting the session. */
  stopSession: async (sessionId: string): Promise<void> => {
    const ended = await endSession(deps.sql, sessionId, { status: 'dead', endReason: 'deleted' })
    deps.outbox.kick()
    if (ended?.changed === true)
      sessionEnded(deps, { session_id: sessionId, agent_id: ended.session.agent_id, reason: 'deleted' })
  },
  failSession: (sessionId: string, failure: { code: FailureCode; reason: string }): Promise<void> =>
    fail(deps, sessionId, failure),
})
