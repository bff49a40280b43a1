import type { SandboxRow } from '../../db/entities/sandbox.ts'
import type { SessionRow } from '../../db/entities/session.ts'
import type { ApiDeps } from '../deps.ts'
import type { Session } from '../schemas/session.ts'
import { supportsTui } from './agent.ts'

const previewMax = 60

const preview = (text: string | null): string | null => {
  const line = text?.replaceAll(/\s+/g, ' ').trim() ?? ''
  if (line === '') return null
  return line.length > previewMax ? `${line.slice(0, previewMax - 1)}…` : line
}

const iso = (time: Date | null): string | null => time?.toISOString() ?? null

/** Where its terminal is. */
export const terminalPath = (id: string): string => `/api/v1/managed_agents/sessions/${id}/tty`

export type Shown = {
  sandbox: Pick<SandboxRow, 'name' | 'endpoint' | 'harness_id'> | null
  /** What the user said first: stands in for a title. */
  firstText?: string | null
  /** Its harness waits for a person. */
  needsInput: boolean
}

/** A session as everybody sees it: no environment, no files, no bodies. */
export const presentSession = (
  deps: Pick<ApiDeps, 'harnesses'>,
  row: Omit<SessionRow, 'request' | 'prompt'>,
  { sandbox, firstText = null, needsInput }: Shown,
): Session => ({
  id: row.id,
  agent_id: row.agent_id,
  title: row.title,
  title_preview: preview(row.title ?? firstText),
  status: row.status,
  needs_input: needsInput,
  phase: row.phase,
  phase_detail: row.phase_detail,
  spawn_mode: row.spawn_mode,
  claim_outcome: row.claim_outcome,
  model: row.model,
  harness_session_id: row.harness_session_id,
  sandbox_url: sandbox?.endpoint ?? null,
  sandboxes: sandbox?.endpoint ? { [sandbox.name]: sandbox.endpoint } : null,
  task_arn: sandbox?.name ?? null,
  tty_url: row.status === 'ready' && supportsTui(deps, sandbox?.harness_id) ? terminalPath(row.id) : null,
  // The reference's, which opens every session's. Here each opening has a ticket of its own.
  tty_token: null,
  supports_tui: supportsTui(deps, sandbox?.harness_id),
  response: null,
  attempt: row.attempt,
  last_seq: row.last_seq,
  phases: row.phases,
  idle_timeout_ms: row.idle_timeout_ms,
  permissions: row.permissions,
  max_turns: row.max_turns,
  max_cost_usd: row.max_cost_usd,
  limit_reached: row.limit_reached,
  usage: row.usage,
  forked_from: row.forked_from,
  failure_code: row.failure_code,
  failure_reason: row.failure_reason,
  end_reason: row.end_reason,
  origin: row.origin,
  created_at: row.created_at.toISOString(),
  ready_at: iso(row.ready_at),
  last_seen_at: iso(row.last_activity_at),
  ended_at: iso(row.ended_at),
})
