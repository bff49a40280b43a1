import { setTimeout as sleep } from 'node:timers/promises'
import { pinCheckpoint, restorableCheckpoints } from '../db/checkpoints.ts'
import type { CheckpointRow } from '../db/entities/checkpoint.ts'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import type { SessionRow } from '../db/entities/session.ts'
import { getSession } from '../db/sessions.ts'
import type { Archive, RestoreFailure } from '../domain/checkpoint.ts'
import { AppError, errorText, isAppError } from '../domain/errors.ts'
import { restoreLossesMax, restoreRetryMs } from '../domain/limits.ts'
import { isEnded } from '../domain/session.ts'
import { holdArchive } from '../sandbox/archive.ts'
import type { Restoring } from '../sandbox/bind.ts'
import { isSupervisorUnreachable } from '../sandbox/supervisor-calls.ts'
import * as events from '../telemetry/events/checkpoints.ts'
import type { ActivityDeps } from './deps.ts'

/** It will not get better: the archive is damaged or not there, or the sandbox does not take it. */
class NotRestorable extends Error {
  override name = 'NotRestorable'
}

type Restore = { session: SessionRow; sandbox: SandboxRow; signal: AbortSignal }

/** This worker ends, or is not waited for any more: another one restores it. Only that the time is over is a reason to go on without. */
const isCancelled = ({ signal }: Restore): boolean =>
  signal.aborted && (signal.reason as Error | undefined)?.name !== 'TimeoutError'

/** @throws NotRestorable */
const fetchArchive = async (
  deps: ActivityDeps,
  { id, store, place, bytes, sha256 }: CheckpointRow,
  signal: AbortSignal,
): Promise<Archive & AsyncDisposable> => {
  const from = deps.checkpoints.of(store)
  if (from === null) throw new NotRestorable(`it is in a store that is not configured any more: ${store}`)
  try {
    const archive = await holdArchive(from.get(id, signal), bytes ?? 0)
    if (archive.bytes === bytes && archive.sha256 === sha256) return archive
    await archive[Symbol.asyncDispose]()
  } catch (error) {
    if (!isAppError(error) || (error.code !== 'too_large' && error.code !== 'not_found')) throw error
    const where = place === from.place ? '' : `: it was stored in ${place}`
    if (error.code === 'not_found') throw new NotRestorable(`its archive is not there${where}`)
  }
  throw new NotRestorable('its archive is damaged')
}

/** @throws NotRestorable */
const put = async (deps: ActivityDeps, checkpoint: CheckpointRow, { sandbox, signal }: Restore): Promise<void> => {
  await using archive = await fetchArchive(deps, checkpoint, signal)
  try {
    await deps.supervisor.restoreCheckpoint(sandbox, { id: checkpoint.id, archive, signal })
  } catch (error) {
    const { code, status } = (isAppError(error) ? (error.cause ?? {}) : {}) as { code?: string; status?: number }
    // An earlier try came as far as the bind, which is answered as it was then.
    if (code === 'bound') return
    // A supervisor that says that it has failed may not fail the next time.
    const refused = isAppError(error) && error.code !== 'conflict' && (status === undefined || status < 500)
    throw refused ? new NotRestorable(`the sandbox does not take it: ${error.message}`) : error
  }
}

const isWanted = async ({ sql }: ActivityDeps, { session, sandbox }: Restore): Promise<boolean> => {
  const now = await getSession(sql, session.id)
  return now !== null && !isEnded(now.status) && now.sandbox_id === sandbox.id
}

/** A store that is down is asked for as long as there is time; what a sandbox fails at, this often. */
const FAILURES_MAX = 3

/** @throws NotRestorable, SupervisorUnreachable; AppError `unavailable` when the time is over */
const insist = async (deps: ActivityDeps, checkpoint: CheckpointRow, restore: Restore): Promise<void> => {
  const { signal } = restore
  for (let failures = 0; ;)
    try {
      return await put(deps, checkpoint, restore)
    } catch (error) {
      if (isCancelled(restore)) signal.throwIfAborted()
      if (signal.aborted) throw new AppError('unavailable', `it took too long; the last try: ${errorText(error)}`)
      if (isSupervisorUnreachable(error) || (Error.isError(error) && error.name === 'NotRestorable')) throw error
      if (isAppError(error) && error.code === 'upstream' && ++failures === FAILURES_MAX)
        throw new NotRestorable(`the sandbox fails to take it: ${error.message}`)
      // A database that is away says nothing about it, nor about the checkpoint.
      if (!(await isWanted(deps, restore).catch(() => true))) throw new NotRestorable('nobody wants it any more')
      deps.log.warn({ checkpoint_id: checkpoint.id, reason: errorText(error) }, 'a checkpoint is tried again')
      await sleep(restoreRetryMs, undefined, { signal }).catch(() => {})
    }
}

const passOver = (deps: ActivityDeps, checkpoint: CheckpointRow, reason: string): RestoreFailure => {
  const { id, session_id, turn_id } = checkpoint
  events.restoreFailed(deps, { session_id, checkpoint_id: id, reason })
  return { checkpoint_id: id, turn_id, error: reason.slice(0, 500) }
}

/**
 * Puts the newest checkpoint of a session that can be restored into its new sandbox, before that is bound. Repeated, the sandbox knows it by its id.
 * @returns null when the session has none and is no fork
 * @throws SupervisorUnreachable
 */
export const restoreCheckpoint = async (deps: ActivityDeps, restore: Restore): Promise<Restoring | null> => {
  const { session } = restore
  const [newest, ...older] = await restorableCheckpoints(deps.sql, session)
  if (newest === undefined) {
    const { id: session_id, forked_from } = session
    if (forked_from === null) return null
    const error = 'the checkpoint that it was forked from is not there any more'
    const { checkpoint_id, turn_id } = forked_from
    events.restoreFailed(deps, { session_id, checkpoint_id, reason: error })
    return { failure: { checkpoint_id, turn_id, error } }
  }
  const lost = session.attempt - session.bound_attempt - 1
  if (lost >= restoreLossesMax) {
    const failure = passOver(deps, newest, `${lost} sandboxes were lost before it was restored`)
    await pinCheckpoint(deps.sql, newest.id)
    return { failure }
  }
  let failure: RestoreFailure | null = null
  for (const checkpoint of [newest, ...older])
    try {
      await insist(deps, checkpoint, restore)
      return failure === null ? { checkpoint } : { checkpoint, failure }
    } catch (error) {
      if (isSupervisorUnreachable(error) || isCancelled(restore)) throw error
      const passed = passOver(deps, checkpoint, errorText(error))
      // What comes after the newest lacks its files: it is kept for a fork.
      if (failure === null) await pinCheckpoint(deps.sql, checkpoint.id)
      failure ??= passed
    }
  return { failure: failure! }
}
