import { decidePermission, listPermissions, permissionDelivered } from '../../db/permissions.ts'
import type { PermissionRow } from '../../db/entities/permission.ts'
import { getSandbox } from '../../db/sandboxes.ts'
import { AppError } from '../../domain/errors.ts'
import { isId } from '../../domain/names.ts'
import type { PermissionDecision } from '../../domain/permission.ts'
import { permissionDecided } from '../../telemetry/events/turns.ts'
import type { ApiDeps } from '../deps.ts'
import { findSession } from '../find.ts'
import type { Context } from '../http.ts'
import { early } from '../interrupt.ts'
import { presentPermission } from '../present/permission.ts'
import { route } from '../route.ts'
import type { Route } from '../route.ts'
import { Permission, PermissionList, PermissionListQuery, PermissionReply } from '../schemas/permission.ts'

const BASE = '/api/v1/managed_agents/sessions/:id/permissions'
const tag = 'permissions'

const list = (deps: ApiDeps): Route =>
  route({
    method: 'get',
    path: BASE,
    operationId: 'listPermissions',
    tag,
    summary: 'What the harness has asked',
    description: 'Oldest first; `?status=open` for what waits for an answer.',
    query: PermissionListQuery,
    replies: [{ status: 200, description: 'Questions', schema: PermissionList }],
    errors: ['not_found'],
    async handle(ctx, { params, query }) {
      const session = await findSession(deps, params.id)
      const page = { status: query.status ?? null, limit: query.limit }
      ctx.body = (await listPermissions(deps.sql, session.id, page)).map(presentPermission)
    },
  })

/** @throws AppError `conflict`, `gone` for a question that has another answer, or none any more */
const checkAnswer = (permission: PermissionRow, decision: PermissionDecision): void => {
  const { id, status } = permission
  if (permission.decision === decision && status !== 'expired') return
  if (status === 'expired')
    throw new AppError('gone', `permission ${id} expired at ${permission.expires_at.toISOString()} and was denied`, {
      reason: 'permission_expired',
    })
  if (status === 'cancelled')
    throw new AppError('gone', `nobody waits for permission ${id} any more: its turn is over`, {
      reason: 'permission_over',
    })
  throw new AppError('conflict', `permission ${id} was answered before, with ${permission.decision}`, {
    reason: 'permission_decided',
  })
}

/** The worker that follows the turn does the same a moment later. */
const deliver = async (ctx: Context, deps: ApiDeps, row: PermissionRow, decision: PermissionDecision) => {
  const sandbox = await getSandbox(deps.sql, row.sandbox_id)
  if (sandbox?.state !== 'claimed') return
  await early(ctx, { permission_id: row.id }, async () => {
    await deps.supervisor.replyPermission(sandbox, row.request_id, decision)
    await permissionDelivered(deps.sql, row.id)
  })
}

const reply = (deps: ApiDeps): Route =>
  route({
    method: 'post',
    path: `${BASE}/:permission_id`,
    operationId: 'replyPermission',
    tag,
    summary: 'Allow or deny what the harness has asked',
    description:
      'The first answer counts; the same one again changes nothing. 409 with `permission_decided` for another one; 410 with `permission_expired` when nobody had answered in time, and with `permission_over` when the turn is over.',
    body: PermissionReply,
    replies: [{ status: 200, description: 'The question with its answer', schema: Permission }],
    errors: ['not_found', 'conflict', 'gone'],
    async handle(ctx, { params, body: { decision } }) {
      const session = await findSession(deps, params.id)
      const id = params['permission_id'] ?? ''
      const answered = isId(id) ? await decidePermission(deps.sql, session.id, { id, decision }) : null
      if (answered === null) throw new AppError('not_found', `permission ${id} not found`)
      const { permission, decided } = answered
      checkAnswer(permission, decision)
      if (decided) {
        const { turn_id, kind } = permission
        const fields = { session_id: session.id, turn_id, permission_id: id, kind, outcome: permission.status }
        permissionDecided({ log: ctx.state.log, metrics: deps.metrics }, fields)
      }
      if (permission.delivered_at === null) await deliver(ctx, deps, permission, decision)
      ctx.body = presentPermission(permission)
    },
  })

export const permissionRoutes = (deps: ApiDeps): Route[] => [list(deps), reply(deps)]
