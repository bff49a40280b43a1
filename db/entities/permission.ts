import { defineEntity, p } from '@mikro-orm/core'
import type { PermissionDecision, PermissionRequest } from '../../domain/permission.ts'
import type { PermissionStatus } from '../../domain/permission-status.ts'

/** What a harness asked before it did something. */
export type PermissionRow = {
  id: string
  session_id: string
  turn_id: string
  sandbox_id: string
  /** The harness' own name of the question. */
  request_id: string
  kind: string
  title: string
  tool: PermissionRequest['tool']
  status: PermissionStatus
  asked_at: Date
  expires_at: Date
  decision: PermissionDecision | null
  decided_by: string | null
  decided_at: Date | null
  /** When the harness had the answer, or could not take one any more. */
  delivered_at: Date | null
}

export const Permission = defineEntity({
  name: 'Permission',
  tableName: 'permission',
  properties: {
    id: p.uuid().primary(),
    session_id: p.uuid(),
    turn_id: p.uuid(),
    sandbox_id: p.uuid(),
    request_id: p.text(),
    kind: p.text(),
    title: p.text(),
    tool: p.json<PermissionRequest['tool']>(),
    status: p.text(),
    asked_at: p.datetime(3),
    expires_at: p.datetime(3),
    decision: p.text().nullable(),
    decided_by: p.text().nullable(),
    decided_at: p.datetime(3).nullable(),
    delivered_at: p.datetime(3).nullable(),
  },
})
