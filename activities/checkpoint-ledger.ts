import { checkpointLost, checkpointsIn, deletedCheckpoints, expireCheckpoints } from '../db/checkpoints.ts'
import { CHECKPOINT_STORES } from '../domain/checkpoint.ts'
import type { CheckpointStore } from '../domain/checkpoint.ts'
import { checkpointAbandonedMs, checkpointsComparedMax, janitorEveryMs } from '../domain/limits.ts'
import { isId } from '../domain/names.ts'
import { removeArchives } from './checkpoint.ts'
import type { ActivityDeps } from './deps.ts'
import { isOld } from './repair.ts'

export const noCheckpointRepairs = { checkpoints_expired: 0, checkpoints_lost: 0, archives_removed: 0 }

const isSettled = (at: Date | null): boolean => at !== null && isOld(at, checkpointAbandonedMs)

/** Of a large store a sixteenth, another one at each look: ids are random, so each has about as many. */
const sliceOf = (rows: number): string =>
  rows <= checkpointsComparedMax ? '' : (Math.floor(Date.now() / janitorEveryMs) % 16).toString(16)

/**
 * Rows against archives. What has just been stored is left alone: a list may be a little behind.
 * @returns rows whose archive is not there or not whole, archives that have no row
 */
const compareStore = async ({ sql }: ActivityDeps, store: CheckpointStore) => {
  const all = await checkpointsIn(sql, store.kind, '')
  const slice = sliceOf(all.length)
  // Archives first: a row is written before its archive, so what has no row here has none.
  const archives = await store.list(slice)
  const rows = new Map((await checkpointsIn(sql, store.kind, slice)).map((row) => [row.id, row]))
  const sizes = new Map(archives.map(({ id, bytes }) => [id, bytes]))
  let lost = 0
  for (const { id, state, place, bytes, stored_at } of rows.values()) {
    const isMissing = place === store.place && sizes.get(id) !== bytes
    if (state === 'stored' && isSettled(stored_at) && isMissing && (await checkpointLost(sql, id))) lost++
  }
  let removed = 0
  for (const { id, at } of archives) {
    if (rows.has(id) || !isId(id) || !isSettled(at)) continue
    await store.remove(id)
    removed++
  }
  return { lost, removed }
}

/** Gives up checkpoints that nobody needs any more, and removes archives that belong to nothing. */
export const compareCheckpoints = async (deps: ActivityDeps): Promise<typeof noCheckpointRepairs> => {
  const { retentionMs } = deps.config.checkpoint
  const repairs = { ...noCheckpointRepairs }
  repairs.checkpoints_expired = await expireCheckpoints(deps.sql, { retentionMs, abandonedMs: checkpointAbandonedMs })
  for (const kind of CHECKPOINT_STORES) {
    const store = deps.checkpoints.of(kind)
    if (store === null) continue
    const { lost, removed } = await compareStore(deps, store)
    repairs.checkpoints_lost += lost
    repairs.archives_removed += removed
  }
  // Those of a store that is not configured any more would keep the others from their turn.
  const stores = CHECKPOINT_STORES.flatMap((kind) => deps.checkpoints.of(kind) ?? [])
  repairs.archives_removed += await removeArchives(deps, await deletedCheckpoints(deps.sql, null, stores))
  return repairs
}
