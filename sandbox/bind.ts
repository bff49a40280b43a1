import type { SandboxRow } from '../db/entities/sandbox.ts'
import type { SessionRow } from '../db/entities/session.ts'
import { lossOf } from '../db/moves.ts'
import type { Loss } from '../db/moves.ts'
import { sessionReady } from '../db/sessions.ts'
import type { Sql } from '../db/sql.ts'
import { listTurnTexts } from '../db/thread.ts'
import { restoredHistoryMaxChars } from '../domain/limits.ts'
import type { BindRequest } from '../domain/supervisor-protocol.ts'
import type { Sealer } from '../vault/seal.ts'
import { retell } from './history.ts'
import type { SupervisorClient } from './supervisor-client.ts'

export type BindDeps = {
  sql: Sql
  sealer: Pick<Sealer, 'open'>
  supervisor: Pick<SupervisorClient, 'bind'>
  litellm: { apiBase: string; apiKey: string }
}

export type Bound =
  | {
      status: 'ready'
      session: SessionRow
      /** What became of the sandbox that the session had before, if it had one. */
      moved: Loss | null
    }
  /** The session has ended or moved on meanwhile: this sandbox is of no use to it. */
  | { status: 'superseded' }

const requestOf = async (deps: BindDeps, session: SessionRow, sandbox: SandboxRow): Promise<BindRequest> => {
  const moved = session.bound_attempt > 0
  const env = Object.entries(session.request.env_vars ?? {}).map(([name, sealed]) => [name, deps.sealer.open(sealed)])
  return {
    epoch: sandbox.epoch,
    session: { id: session.id, agent_id: session.agent_id, title: session.title },
    env: Object.fromEntries(env) as Record<string, string>,
    prompt: session.prompt,
    model: session.model,
    gateway: { base_url: deps.litellm.apiBase, api_key: deps.litellm.apiKey },
    files: session.request.files ?? [],
    permissions: session.permissions,
    history: moved ? retell(await listTurnTexts(deps.sql, session.id), restoredHistoryMaxChars) : [],
  }
}

/**
 * Tells a claimed sandbox whom it works for, then makes the session ready. Both steps may be repeated, by any process: the supervisor answers the same
 * epoch the same, and the session becomes ready by compare-and-set on its attempt.
 * @param session as it is after the claim of this sandbox
 * @throws SupervisorUnreachable, AppError `conflict` when the sandbox belongs to another epoch
 */
export const bindSession = async (
  deps: BindDeps,
  { session, sandbox }: { session: SessionRow; sandbox: SandboxRow },
): Promise<Bound> => {
  const since = performance.now() - (Date.now() - session.created_at.getTime())
  const elapsedMs = (): number => Math.max(0, Math.round((performance.now() - since) * 10) / 10)
  const phases: Record<string, number> = { claimed: elapsedMs() }
  const reply = await deps.supervisor.bind(sandbox, await requestOf(deps, session, sandbox))
  phases['bound'] = phases['ready'] = elapsedMs()
  const moved = session.bound_attempt > 0 ? await lossOf(deps.sql, session.id, session.bound_attempt) : null
  const row = await sessionReady(deps.sql, {
    sessionId: session.id,
    attempt: session.attempt,
    harnessSessionId: reply.harness_session_id,
    phases,
    ...(moved === null ? {} : { moved }),
  })
  return row === null ? { status: 'superseded' } : { status: 'ready', session: row, moved }
}
