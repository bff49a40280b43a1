import { setTimeout as sleep } from 'node:timers/promises'
import { Context } from '@temporalio/activity'
import pLimit from 'p-limit'
import { pinCheckpoint, restorableCheckpoints } from '../db/checkpoints.ts'
import { claimWasDead } from '../db/claims.ts'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import { getSandbox } from '../db/sandboxes.ts'
import { getSession } from '../db/sessions.ts'
import { errorText, isAppError } from '../domain/errors.ts'
import { bindTries, provisionHeartbeatMs, reconnectMs, restoresAtOnceMax, restoreTimeoutMs } from '../domain/limits.ts'
import { isEnded } from '../domain/session.ts'
import { bindSession } from '../sandbox/bind.ts'
import type { Bound, Restoring } from '../sandbox/bind.ts'
import { isSupervisorUnreachable } from '../sandbox/supervisor-calls.ts'
import { restored as restoredEvent } from '../telemetry/events/checkpoints.ts'
import { sandboxMoved, sessionReady } from '../telemetry/events/sessions.ts'
import type { ActivityDeps } from './deps.ts'
import { withHeartbeat } from './heartbeat.ts'
import { restoreCheckpoint } from './restore.ts'
import { inspected, mayLive, noteFailure } from './sandbox.ts'

/** `dead`: the sandbox does not answer, and is not the session's any more; `superseded`: the session has ended or moved on. */
export type BindOutcome = 'ready' | 'superseded' | 'dead'

const announceReady = (deps: ActivityDeps, bound: Bound & { status: 'ready' }): void => {
  const { session: after, moved, restored } = bound
  const ids = {
    session_id: after.id,
    agent_id: after.agent_id,
    sandbox_id: after.sandbox_id ?? '',
    attempt: after.attempt,
  }
  if (restored !== null) restoredEvent(deps, { session_id: after.id, ...restored })
  if (moved !== null) sandboxMoved(deps, { ...ids, reason: moved.reason, interrupted_turn: moved.interrupted_turn })
  else if (after.ready_at !== null)
    sessionReady(deps, {
      ...ids,
      spawn_mode: after.spawn_mode,
      duration_ms: after.ready_at.getTime() - after.created_at.getTime(),
      phases: after.phases,
    })
}

const discard = async (deps: ActivityDeps, sandbox: SandboxRow, error: unknown): Promise<BindOutcome> => {
  const evidence = await inspected(deps, sandbox.name)
  const message = `It did not answer: ${errorText(error)}`
  await noteFailure(deps, sandbox, { code: 'sandbox_lost', message, evidence }, 'claim')
  // Until another one is claimed it counts as a cold start, and says why.
  if (sandbox.purpose === 'pool' && sandbox.session_id !== null)
    await claimWasDead(deps.sql, { sessionId: sandbox.session_id, sandboxId: sandbox.id, retried: false })
  return 'dead'
}

/** Whether there is a checkpoint to be put into the sandbox first. */
const isRestored = async ({ sql }: ActivityDeps, sessionId: string): Promise<boolean> => {
  const session = await getSession(sql, sessionId)
  if (session === null || session.bound_attempt === session.attempt) return false
  return (await restorableCheckpoints(sql, session)).length > 0
}

/** Tells the sandbox whom it works for. One that does not answer, and is not there either, is given up at once. */
const bind = async (deps: ActivityDeps, sessionId: string, timeoutMs: number): Promise<BindOutcome> => {
  const { cancellationSignal } = Context.current()
  // It may have waited for its place for so long that another worker does it by now.
  cancellationSignal.throwIfAborted()
  const session = await getSession(deps.sql, sessionId)
  if (session === null || isEnded(session.status) || session.sandbox_id === null) return 'superseded'
  if (session.bound_attempt === session.attempt) return 'ready'
  const sandbox = await getSandbox(deps.sql, session.sandbox_id)
  if (sandbox?.state !== 'claimed') return 'dead'
  const { sql, sealer, supervisor, config } = deps
  const signal = AbortSignal.any([cancellationSignal, AbortSignal.timeout(timeoutMs)])
  let restoring: Restoring | null = null
  for (let tries = 1; ; tries++)
    try {
      // Once in, it stays there; the time for it may be over when the bind is tried again.
      restoring ??= await restoreCheckpoint(deps, { session, sandbox, signal })
      const binding = { session, sandbox, restoring }
      const bound = await bindSession({ sql, sealer, supervisor, litellm: config.litellm }, binding)
      if (bound.status === 'superseded') return 'superseded'
      announceReady(deps, bound)
      // What comes after it lacks what could not be had, such as its commits: it is kept for a fork.
      if (bound.restored !== null && bound.restored.problems.length > 0)
        await pinCheckpoint(sql, bound.restored.checkpoint_id).catch(() => {})
      // Webhooks are told.
      deps.outbox.kick()
      return 'ready'
    } catch (error) {
      const refused = isAppError(error) && (error.code === 'conflict' || error.code === 'upstream')
      if (!refused && !isSupervisorUnreachable(error)) throw error
      const gone = !mayLive(await inspected(deps, sandbox.name))
      if (gone || tries >= bindTries || (isAppError(error) && error.code === 'conflict'))
        return discard(deps, sandbox, error)
      await sleep(reconnectMs)
    }
}

/**
 * @param options.places of sessions that get their checkpoint back: taken before anything of their time runs, and before it is seen what is wanted
 * @param options.timeoutMs how long a restore may take
 */
export const bindActivities = (
  deps: ActivityDeps,
  { places = pLimit(restoresAtOnceMax), timeoutMs = restoreTimeoutMs } = {},
) => ({
  bindSandbox: (sessionId: string): Promise<BindOutcome> =>
    withHeartbeat(provisionHeartbeatMs, async () => {
      const begin = () => bind(deps, sessionId, timeoutMs)
      return (await isRestored(deps, sessionId)) ? places(begin) : begin()
    }),
})
