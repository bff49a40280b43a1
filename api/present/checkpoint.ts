import type { CheckpointRow } from '../../db/entities/checkpoint.ts'
import type { Checkpoint } from '../schemas/checkpoint.ts'

export const presentCheckpoint = (row: CheckpointRow): Checkpoint => ({
  id: row.id,
  session_id: row.session_id,
  turn_id: row.turn_id,
  store: row.store,
  bytes: row.bytes ?? 0,
  sha256: row.sha256 ?? '',
  files: row.manifest?.files ?? 0,
  has_conversation: row.manifest?.has_conversation ?? false,
  base_commit: row.manifest?.base_commit ?? null,
  omitted: row.manifest?.omitted ?? [],
  omitted_more: row.manifest?.omitted_more ?? 0,
  created_at: row.created_at.toISOString(),
})
