import { Context } from '@temporalio/activity'
import { getAgentAny } from '../db/agents.ts'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import { pokePools, retirePooled } from '../db/flow.ts'
import { endPoolWait } from '../db/pool.ts'
import { getSandbox, sandboxBooted, sandboxFailed, sandboxGone } from '../db/sandboxes.ts'
import { setPhase } from '../db/sessions.ts'
import { AppError, errorText, isAppError } from '../domain/errors.ts'
import { createPatienceMs, provisionHeartbeatMs, sandboxReadyTimeoutMs } from '../domain/limits.ts'
import type { SandboxState } from '../domain/sandbox.ts'
import { SandboxFailedError } from '../sandbox/driver.ts'
import type { Evidence, ReadyProgress, SandboxFailure, SandboxSpec } from '../sandbox/driver.ts'
import * as events from '../telemetry/events/sandboxes.ts'
import { specOf, templateNow } from './deps.ts'
import type { ActivityDeps } from './deps.ts'
import { sandboxFailure } from './failure.ts'
import { withHeartbeat } from './heartbeat.ts'
import { noteLastUsage } from './terminal-usage.ts'

/** What is known of a sandbox; never throws, because a missing piece of evidence must not keep anything from ending. */
export const inspected = async (deps: Pick<ActivityDeps, 'driver'>, name: string): Promise<Evidence> => {
  try {
    return await deps.driver.inspect(name)
  } catch (error) {
    // Not knowing is no reason to call it gone.
    return { exists: true, error: errorText(error) }
  }
}

/** Whether it may still answer. */
export const mayLive = (evidence: Evidence): boolean => evidence.exists && evidence.alive !== false

const failureOf = (error: unknown): SandboxFailure | null =>
  Error.isError(error) && error.name === 'SandboxFailedError'
    ? (error as Error & { failure: SandboxFailure }).failure
    : null

/** `unwanted`: its row has ended, because nobody wants it, or because its agent changed; what was made of it is removed. */
export type Booted = { is: 'up'; endpoint: string } | { is: 'failed'; failure: SandboxFailure } | { is: 'unwanted' }

const isOver = (state: SandboxState | undefined): boolean =>
  state === undefined || state === 'ending' || state === 'failed' || state === 'gone'

/** Its agent did not change, so another worker must have ordered it. Waiting keeps the two from ordering and refusing in turns. */
const settingsDiffer: SandboxFailure = {
  code: 'setup_failed',
  message:
    'It was ordered by a worker with other settings (MASTER_KEY, CONTAINER_ENV_*, PREINSTALLED_GITHUB_REPO, K8S_*); all workers need the same',
  evidence: { exists: false },
}

/** @throws SandboxFailedError when the driver will not make it, however often it is asked; anything else is worth another try */
const create = async (
  deps: ActivityDeps,
  spec: SandboxSpec,
  sandbox: SandboxRow,
  onProgress?: ReadyProgress,
): Promise<void> => {
  try {
    await deps.driver.create(spec, onProgress)
  } catch (error) {
    if (failureOf(error) !== null) throw error
    const message = errorText(error)
    // What the driver refuses, such as a harness that it does not have, it will refuse again.
    if (isAppError(error) && error.code === 'invalid')
      throw new SandboxFailedError({ code: 'image_pull', message, evidence: { exists: false } })
    const age = Date.now() - sandbox.created_at.getTime()
    // Nobody was there to refuse it, which says nothing about it: as long as it may take to start, it is asked for again.
    const away = isAppError(error) && error.code === 'unavailable'
    if (age < (away ? sandboxReadyTimeoutMs : createPatienceMs)) throw error
    const code = away ? 'start_timeout' : 'setup_failed'
    throw new SandboxFailedError({ code, message, evidence: await inspected(deps, spec.name) })
  }
}

/** Creates the sandbox and waits until it can be used. Repeated, by any worker, it goes on waiting for the same one. */
export const startUp = async (deps: ActivityDeps, sandbox: SandboxRow, onProgress?: ReadyProgress): Promise<Booted> => {
  const agent = await getAgentAny(deps.sql, sandbox.agent_id)
  if (agent === null) throw new AppError('not_found', `agent ${sandbox.agent_id} not found`)
  const { template, hash } = templateNow(deps, agent)
  // One of the pool is found by the hash in its row, so it is made of exactly that or not at all.
  if (sandbox.purpose === 'pool' && hash !== sandbox.template_hash) {
    if (agent.updated_at <= sandbox.created_at) return { is: 'failed', failure: settingsDiffer }
    await retirePooled(deps.sql, sandbox.id)
    return { is: 'unwanted' }
  }
  const spec = specOf(deps, sandbox, template)
  const signal = Context.current().cancellationSignal
  const deadlineMs = Math.max(1, sandbox.created_at.getTime() + sandboxReadyTimeoutMs - Date.now())
  try {
    await create(deps, spec, sandbox, onProgress)
    // Whoever ended the row meanwhile may have removed it before it was there.
    if (isOver((await getSandbox(deps.sql, sandbox.id))?.state)) {
      await deps.driver.remove(sandbox.name)
      return { is: 'unwanted' }
    }
    const options = { deadlineMs, signal, ...(onProgress === undefined ? {} : { onProgress }) }
    return { is: 'up', endpoint: (await deps.driver.ready(sandbox.name, options)).endpoint }
  } catch (error) {
    const failure = failureOf(error)
    if (failure === null) throw error
    return { is: 'failed', failure }
  }
}

/** Where in its life a sandbox failed. */
type FailureStage = 'start' | 'warm' | 'claim' | 'session'

/** After the row that says so was committed, and with it the messages to those whom it concerns. */
export const announceFailure = (
  deps: Pick<ActivityDeps, 'log' | 'metrics' | 'outbox'>,
  sandbox: SandboxRow,
  { code, message }: SandboxFailure,
  stage: FailureStage,
): void => {
  deps.outbox.kick()
  const { id: sandbox_id, agent_id, purpose, session_id } = sandbox
  events.sandboxFailed(deps, { sandbox_id, agent_id, purpose, stage, code, message, session_id })
}

/** The row says why before the thing is removed. @returns whether it was this call that ended it */
export const noteFailure = async (
  deps: Pick<ActivityDeps, 'sql' | 'log' | 'metrics' | 'outbox'>,
  sandbox: SandboxRow,
  failure: SandboxFailure,
  stage: FailureStage,
): Promise<boolean> => {
  if ((await sandboxFailed(deps.sql, sandbox.id, failure, sandbox.epoch)) === null) return false
  announceFailure(deps, sandbox, failure, stage)
  return true
}

/** Its template starts, so the pool of the agent need not wait any longer. Only a warm one of its own lets it forget its failures. */
const noteGoodStart = async (deps: ActivityDeps, agentId: string): Promise<void> => {
  if (!(await endPoolWait(deps.sql, agentId))) return
  await pokePools(deps.sql, [agentId])
  deps.outbox.kick()
}

const provision = async (deps: ActivityDeps, sandboxId: string): Promise<'up' | 'unwanted'> => {
  const sandbox = await getSandbox(deps.sql, sandboxId)
  if (sandbox === null || sandbox.session_id === null) return 'unwanted'
  if (sandbox.state === 'claimed') return 'up'
  if (sandbox.state === 'failed')
    throw sandboxFailure({
      code: sandbox.failure_code ?? 'sandbox_lost',
      message: sandbox.failure_message ?? 'it was lost',
    })
  if (sandbox.state !== 'provisioning') return 'unwanted'
  const sessionId = sandbox.session_id
  const started = await startUp(deps, sandbox, (phase) => {
    // A phase that is not noted is only not seen.
    setPhase(deps.sql, sessionId, phase).catch(() => {})
  })
  if (started.is === 'failed') {
    await noteFailure(deps, sandbox, started.failure, 'start')
    throw sandboxFailure(started.failure)
  }
  if (started.is === 'unwanted') return 'unwanted'
  if ((await sandboxBooted(deps.sql, sandboxId, started.endpoint)) === null) return 'unwanted'
  await noteGoodStart(deps, sandbox.agent_id)
  return 'up'
}

/** Only where the driver wants to know. What is being made, or has ended, needs no mark. @returns whether it was told */
export const mark = async ({ sql, driver }: ActivityDeps, sandboxId: string): Promise<boolean> => {
  const sandbox = await getSandbox(sql, sandboxId)
  if (sandbox === null) return false
  const { state, name, session_id } = sandbox
  const claimed = state === 'claimed' && session_id !== null ? driver.markClaimed?.(name, session_id) : undefined
  const told = claimed ?? (state === 'warm' ? driver.markReady?.(name) : undefined)
  await told
  return told !== undefined
}

/** Removes a sandbox that has ended, and all that belongs to it. What was seen of it is stored before. */
export const removeEnded = async (deps: ActivityDeps, sandboxId: string): Promise<void> => {
  const sandbox = await getSandbox(deps.sql, sandboxId)
  if (sandbox === null || (sandbox.state !== 'ending' && sandbox.state !== 'failed')) return
  const evidence = sandbox.evidence === null && sandbox.state === 'failed' ? await inspected(deps, sandbox.name) : null
  if (sandbox.state === 'ending') await noteLastUsage(deps, sandbox)
  await deps.driver.remove(sandbox.name)
  await sandboxGone(deps.sql, sandboxId, evidence)
  events.sandboxRemoved(deps, { sandbox_id: sandboxId, agent_id: sandbox.agent_id, reason: sandbox.failure_code })
}

export const sandboxActivities = (deps: ActivityDeps) => ({
  /**
   * Starts the sandbox that was assigned to a session. `unwanted`: the session has ended meanwhile.
   * @throws `SandboxFailed` with its code, evidence stored
   */
  provisionSandbox: (sandboxId: string): Promise<'up' | 'unwanted'> =>
    withHeartbeat(provisionHeartbeatMs, () => provision(deps, sandboxId)),
  /** Tells the driver that the sandbox belongs to a session now. */
  markSandbox: async (sandboxId: string): Promise<void> => void (await mark(deps, sandboxId)),
  removeSandbox: (sandboxId: string): Promise<void> =>
    withHeartbeat(provisionHeartbeatMs, () => removeEnded(deps, sandboxId)),
})
