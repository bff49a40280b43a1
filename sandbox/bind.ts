import type { CheckpointRow } from '../db/entities/checkpoint.ts'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import type { SessionRow } from '../db/entities/session.ts'
import { lossOf } from '../db/moves.ts'
import type { Loss } from '../db/moves.ts'
import { sessionReady } from '../db/sessions.ts'
import type { Sql } from '../db/sql.ts'
import { listTurnTexts } from '../db/thread.ts'
import type { RestoreFailure, RestoreReport } from '../domain/checkpoint.ts'
import { restoredHistoryMaxChars } from '../domain/limits.ts'
import type { BindReply, BindRequest } from '../domain/supervisor-protocol.ts'
import type { Sealer } from '../vault/seal.ts'
import { retell } from './history.ts'
import { mcpServersOf } from './mcp-servers.ts'
import type { SupervisorClient } from './supervisor-client.ts'

export type BindDeps = {
  sql: Sql
  sealer: Pick<Sealer, 'open'>
  supervisor: Pick<SupervisorClient, 'bind'>
  litellm: { apiBase: string; apiKey: string }
}

/** What was put into the sandbox before the bind, and why it is not the newest, or why it is nothing. */
export type Restoring = { checkpoint: CheckpointRow; failure?: RestoreFailure } | { failure: RestoreFailure }

export type Bound =
  | {
      status: 'ready'
      session: SessionRow
      /** What became of the sandbox that the session had before, if it had one. */
      moved: Loss | null
      restored: RestoreReport | null
    }
  /** The session has ended or moved on meanwhile: this sandbox is of no use to it. */
  | { status: 'superseded' }

type Binding = { session: SessionRow; sandbox: SandboxRow; restoring?: Restoring | null }

/** What the harness is told of what was said before: all of it, and what came after the checkpoint. */
const toldOf = async (
  sql: Sql,
  { session, restoring }: Binding,
): Promise<Pick<BindRequest, 'history' | 'checkpoint'>> => {
  if (session.bound_attempt === 0 && session.forked_from === null) return { history: [] }
  const turns = await listTurnTexts(sql, session.id)
  const history = retell(turns, restoredHistoryMaxChars)
  if (!restoring || !('checkpoint' in restoring)) return { history }
  const { id, turn_seq } = restoring.checkpoint
  const later = turns.filter(({ seq }) => seq > turn_seq)
  return { history, checkpoint: { id, since: retell(later, restoredHistoryMaxChars) } }
}

const requestOf = async (deps: BindDeps, binding: Binding): Promise<BindRequest> => {
  const { session, sandbox } = binding
  const env = Object.entries(session.request.env_vars ?? {}).map(([name, sealed]) => [name, deps.sealer.open(sealed)])
  return {
    epoch: sandbox.epoch,
    session: { id: session.id, agent_id: session.agent_id, title: session.title },
    env: Object.fromEntries(env) as Record<string, string>,
    prompt: session.prompt,
    model: session.model,
    gateway: { base_url: deps.litellm.apiBase, api_key: deps.litellm.apiKey },
    files: session.request.files ?? [],
    mcp: mcpServersOf(session.request.mcp_servers ?? [], deps.litellm),
    permissions: session.permissions,
    ...(await toldOf(deps.sql, binding)),
    ...(session.bound_attempt > 0 ? { moved: true } : {}),
  }
}

const reportOf = (restoring: Restoring | null, reply: BindReply): RestoreReport | null => {
  if (restoring === null || !('checkpoint' in restoring) || reply.restored === undefined) return null
  const { id, turn_id, manifest } = restoring.checkpoint
  const omitted = (manifest?.omitted.length ?? 0) + (manifest?.omitted_more ?? 0)
  return { checkpoint_id: id, turn_id, omitted, ...reply.restored }
}

/**
 * Tells a claimed sandbox whom it works for, then makes the session ready. Both steps may be repeated, by any process: the supervisor answers the same
 * epoch the same, and the session becomes ready by compare-and-set on its attempt.
 * @param binding.session as it is after the claim of this sandbox
 * @throws SupervisorUnreachable, AppError `conflict` when the sandbox belongs to another epoch
 */
export const bindSession = async (deps: BindDeps, binding: Binding): Promise<Bound> => {
  const { session, sandbox, restoring = null } = binding
  const since = performance.now() - (Date.now() - session.created_at.getTime())
  const elapsedMs = (): number => Math.max(0, Math.round((performance.now() - since) * 10) / 10)
  const phases: Record<string, number> = { claimed: elapsedMs() }
  const slow = restoring !== null && !('checkpoint' in restoring)
  const reply = await deps.supervisor.bind(sandbox, await requestOf(deps, binding), { slow })
  phases['bound'] = phases['ready'] = elapsedMs()
  const moved = session.bound_attempt > 0 ? await lossOf(deps.sql, session.id, session.bound_attempt) : null
  const restored = reportOf(restoring, reply)
  const failed = restoring?.failure === undefined ? {} : { restore_failed: restoring.failure }
  const row = await sessionReady(deps.sql, {
    sessionId: session.id,
    attempt: session.attempt,
    harnessSessionId: reply.harness_session_id,
    phases,
    ...(moved === null && restoring === null ? {} : { told: { ...moved, restored, ...failed } }),
  })
  return row === null ? { status: 'superseded' } : { status: 'ready', session: row, moved, restored }
}
