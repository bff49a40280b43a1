import { randomUUID } from 'node:crypto'
import { Context } from '@temporalio/activity'
import pLimit from 'p-limit'
import type { Begun, CheckpointFailure } from '../db/checkpoints.ts'
import {
  beginCheckpoint,
  checkpointFailed,
  checkpointSkipped,
  checkpointStored,
  deletedCheckpoints,
  forgetCheckpoint,
} from '../db/checkpoints.ts'
import type { CheckpointRow } from '../db/entities/checkpoint.ts'
import { giveUpSandbox } from '../db/restart.ts'
import { getSession } from '../db/sessions.ts'
import { errorText, isAppError } from '../domain/errors.ts'
import {
  checkpointBackoffFirstMs,
  checkpointBackoffMaxMs,
  checkpointBusyMs,
  checkpointStoreTimeoutMs,
  checkpointsAtOnceMax,
  restartCheckpointMs,
  turnHeartbeatEveryMs,
} from '../domain/limits.ts'
import { holdArchive } from '../sandbox/archive.ts'
import { isSupervisorUnreachable } from '../sandbox/supervisor-calls.ts'
import * as events from '../telemetry/events/checkpoints.ts'
import type { ActivityDeps } from './deps.ts'
import { withHeartbeat } from './heartbeat.ts'
import { inspected, mayLive, noteFailure } from './sandbox.ts'

/** `none`: nothing was to be done, or can be; `failed`: it is tried again later. */
export type CheckpointOutcome = 'stored' | 'none' | 'failed'

/** The store did not take it; its words are for the operator. */
class StoreFailed extends Error {
  override name = 'StoreFailed'
}

const backoffMs = (failures: number): number =>
  Math.min(checkpointBackoffFirstMs * 2 ** (failures - 1), checkpointBackoffMaxMs)

/** The code with which a supervisor refused. */
const refusalOf = (error: unknown): string | undefined =>
  isAppError(error) ? ((error.cause ?? {}) as { code?: string }).code : undefined

/** What a supervisor says that has nothing wrong with it. */
const skipOf = (error: unknown): { again: number | null } | null => {
  if (!isAppError(error)) return null
  // One of an earlier version, which knows no checkpoints.
  if (error.code === 'not_found') return { again: null }
  const code = refusalOf(error)
  if (error.code === 'conflict' && code === 'turn_running') return { again: checkpointBusyMs }
  return error.code === 'conflict' && code === 'no_conversation' ? { again: null } : null
}

const failureOf = (error: unknown): CheckpointFailure => {
  if ((isAppError(error) && error.code === 'too_large') || refusalOf(error) === 'too_large')
    return { code: 'too_large', message: 'It is larger than CHECKPOINT_MAX_MIB.', again: null }
  if (Error.isError(error) && error.name === 'StoreFailed')
    return { code: 'store_unavailable', message: 'It could not be stored; it is tried again.', again: backoffMs }
  if (isSupervisorUnreachable(error))
    return { code: 'sandbox_unreachable', message: 'The sandbox did not answer; it is tried again.', again: backoffMs }
  return { code: 'checkpoint_failed', message: errorText(error), again: backoffMs }
}

/** Archives of checkpoints that were given up. What fails is done by the janitor. */
export const removeArchives = async (deps: ActivityDeps, rows: CheckpointRow[]): Promise<number> => {
  let removed = 0
  for (const { id, store } of rows)
    try {
      const at = deps.checkpoints.of(store)
      if (at === null) continue
      await at.remove(id)
      await forgetCheckpoint(deps.sql, id)
      removed++
    } catch (error) {
      deps.log.warn({ checkpoint_id: id, store, reason: errorText(error) }, 'an archive could not be removed')
    }
  return removed
}

const take = async (deps: ActivityDeps, { checkpoint, sandbox }: Begun, signal: AbortSignal): Promise<boolean> => {
  const startedAt = Date.now()
  const { maxBytes } = deps.config.checkpoint
  const taken = await deps.supervisor.takeCheckpoint(sandbox, { maxBytes, signal })
  await using archive = await holdArchive(taken.archive, maxBytes)
  await deps.checkpoints.current.put(checkpoint.id, archive, signal).catch((cause: unknown) => {
    throw new StoreFailed(errorText(cause), { cause })
  })
  const { manifest } = taken
  const { bytes, sha256 } = archive
  if ((await checkpointStored(deps.sql, checkpoint, { manifest, bytes, sha256 })) === null) return false
  events.checkpointStored(deps, {
    session_id: checkpoint.session_id,
    checkpoint_id: checkpoint.id,
    turn_id: checkpoint.turn_id,
    bytes,
    files: manifest.files,
    omitted: manifest.omitted.length + manifest.omitted_more,
    duration_ms: Date.now() - startedAt,
  })
  return true
}

/** Its sandbox is not there any more, which matters more than the checkpoint. */
const noteLoss = async (deps: ActivityDeps, { sandbox }: Begun, error: unknown): Promise<boolean> => {
  if (!isSupervisorUnreachable(error)) return false
  const evidence = await inspected(deps, sandbox.name)
  if (mayLive(evidence)) return false
  const message = 'It did not answer when its checkpoint was taken.'
  await noteFailure(deps, sandbox, { code: 'sandbox_lost', message, evidence }, 'session')
  return true
}

const noteEnd = async (deps: ActivityDeps, begun: Begun, error: unknown): Promise<CheckpointOutcome> => {
  const { checkpoint } = begun
  const skip = (await noteLoss(deps, begun, error)) ? { again: checkpointBusyMs } : skipOf(error)
  if (skip !== null) {
    await checkpointSkipped(deps.sql, checkpoint, skip.again)
    return 'none'
  }
  const failure = failureOf(error)
  const told = await checkpointFailed(deps.sql, checkpoint, failure)
  const { session_id, turn_id } = checkpoint
  events.checkpointFailed(deps, { session_id, turn_id, code: failure.code, reason: errorText(error), first: told })
  return 'failed'
}

/** Takes a checkpoint behind the last turn of a session, when one is due. */
const store = async (deps: ActivityDeps, sessionId: string, timeoutMs: number): Promise<CheckpointOutcome> => {
  const { cancellationSignal } = Context.current()
  // It may have waited for its turn for so long that another worker does it by now, whose row this would give up.
  cancellationSignal.throwIfAborted()
  const { current } = deps.checkpoints
  const begun = await beginCheckpoint(deps.sql, sessionId, { id: randomUUID(), store: current })
  if (begun === null) return 'none'
  const signal = AbortSignal.any([cancellationSignal, AbortSignal.timeout(timeoutMs)])
  try {
    const outcome = (await take(deps, begun, signal)) ? 'stored' : 'none'
    // Only a store that works is asked: one that hangs would hold up a restart, which waits for this, once for each archive. The janitor does the rest.
    await deletedCheckpoints(deps.sql, sessionId, [current])
      .then((rows) => removeArchives(deps, rows))
      .catch(() => {})
    return outcome
  } catch (error) {
    if (cancellationSignal.aborted) throw error
    return await noteEnd(deps, begun, error)
  }
}

export const checkpointActivities = (deps: ActivityDeps) => {
  const limit = pLimit(checkpointsAtOnceMax)
  return {
    /** A failure is written down with the time of the next try; it is thrown only when that cannot be. */
    storeCheckpoint: (sessionId: string): Promise<CheckpointOutcome> =>
      withHeartbeat(turnHeartbeatEveryMs, () => limit(() => store(deps, sessionId, checkpointStoreTimeoutMs))),
    /** A restart: a checkpoint, if one is due and can be had, then the sandbox is given up. */
    leaveSandbox: (sessionId: string): Promise<void> =>
      withHeartbeat(turnHeartbeatEveryMs, async () => {
        const session = await getSession(deps.sql, sessionId)
        if (session?.restart_requested_at == null) return
        await store(deps, sessionId, restartCheckpointMs)
        await giveUpSandbox(deps.sql, sessionId)
        deps.outbox.kick()
      }),
  }
}
