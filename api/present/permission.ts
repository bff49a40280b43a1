import type { PermissionRow } from '../../db/entities/permission.ts'
import type { Permission } from '../schemas/permission.ts'

export const presentPermission = (row: PermissionRow): Permission => ({
  id: row.id,
  session_id: row.session_id,
  turn_id: row.turn_id,
  kind: row.kind,
  title: row.title,
  tool: row.tool,
  status: row.status,
  decision: row.decision,
  decided_by: row.decided_by,
  asked_at: row.asked_at.toISOString(),
  expires_at: row.expires_at.toISOString(),
  decided_at: row.decided_at?.toISOString() ?? null,
  delivered_at: row.delivered_at?.toISOString() ?? null,
})
