import { defineEntity, p } from '@mikro-orm/core'
import type { CheckpointState, CheckpointStoreKind } from '../../domain/checkpoint.ts'
import type { CheckpointManifest } from '../../domain/supervisor-protocol.ts'

/** What a session looked like behind a turn. */
export type CheckpointRow = {
  id: string
  session_id: string
  /** The turn that it stands behind. */
  turn_id: string
  turn_seq: number
  sandbox_id: string
  attempt: number
  harness_id: string
  state: CheckpointState
  /** Where its archive is. */
  store: CheckpointStoreKind
  /** `CheckpointStore.place` of that store when it was begun; '' of rows without it. */
  place: string
  /** Kept though newer ones are there: what came after it did not have its files. */
  pinned: boolean
  manifest: CheckpointManifest | null
  /** Of the archive. */
  bytes: number | null
  sha256: string | null
  created_at: Date
  stored_at: Date | null
}

export const Checkpoint = defineEntity({
  name: 'Checkpoint',
  tableName: 'checkpoint',
  properties: {
    id: p.uuid().primary(),
    session_id: p.uuid(),
    turn_id: p.uuid(),
    turn_seq: p.integer(),
    sandbox_id: p.uuid(),
    attempt: p.integer(),
    harness_id: p.text(),
    state: p.text(),
    store: p.text(),
    place: p.text().defaultRaw(`''`),
    pinned: p.boolean(),
    manifest: p.json<CheckpointManifest>().nullable(),
    bytes: p.integer().nullable(),
    sha256: p.text().nullable(),
    created_at: p.datetime(3),
    stored_at: p.datetime(3).nullable(),
  },
})

/** A piece of an archive that is kept in Postgres. */
export const CheckpointChunk = defineEntity({
  name: 'CheckpointChunk',
  tableName: 'checkpoint_chunk',
  properties: {
    checkpoint_id: p.uuid().primary(),
    seq: p.integer().primary(),
    data: p.blob(),
  },
})
