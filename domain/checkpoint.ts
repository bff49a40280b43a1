/**
 * What a session looked like behind a turn: the harness' conversation and the files that differ from the clone, as one archive.
 *
 *   storing ──► stored ──► deleted ──► (archive removed) no row
 *      └────────────────────►
 *
 * A row is written before its archive and outlives it, so that no archive is forgotten.
 */
export const CHECKPOINT_STATES = ['storing', 'stored', 'deleted'] as const
export type CheckpointState = (typeof CHECKPOINT_STATES)[number]

export const CHECKPOINT_STORES = ['postgres', 's3'] as const
export type CheckpointStoreKind = (typeof CHECKPOINT_STORES)[number]

/** An archive as a store lists it. */
export type StoredArchive = { id: string; bytes: number; at: Date }

/** An archive at hand; it may be read any number of times. */
export type Archive = { bytes: number; sha256: string; read(): AsyncIterable<Uint8Array> }

/** Where archives are kept, by the id of their checkpoint. Every call may be repeated. */
export type CheckpointStore = {
  readonly kind: CheckpointStoreKind
  /** Which one of its kind: an archive that is missing from another one is not lost. '' where there is one only. */
  readonly place: string
  put(id: string, archive: Archive, signal: AbortSignal): Promise<void>
  /** @throws AppError `not_found` when there is none */
  get(id: string, signal: AbortSignal): AsyncIterable<Uint8Array>
  /** Also what is not there. */
  remove(id: string): Promise<void>
  /** @param prefix beginning of the ids */
  list(prefix: string): Promise<StoredArchive[]>
}

/** Where archives are kept from now on, and where earlier ones may be. */
export type CheckpointStores = { current: CheckpointStore; of(kind: CheckpointStoreKind): CheckpointStore | null }

/** What a moved or forked session has of its checkpoint. */
export type RestoreReport = {
  checkpoint_id: string
  /** The turn behind which it was taken. */
  turn_id: string
  /** Whether the harness goes on with its own state of the conversation; false: it was told what had been said. */
  conversation: boolean
  files: number
  /** Files that the checkpoint did not hold. */
  omitted: number
  problems: { path: string; reason: string }[]
}

/** Nothing could be restored: the session goes on with what was said, in a fresh clone. */
export type RestoreFailure = { checkpoint_id: string; turn_id: string; error: string }
