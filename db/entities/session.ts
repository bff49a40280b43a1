import { defineEntity, p } from '@mikro-orm/core'
import type { PermissionPolicy } from '../../domain/permission.ts'
import { noUsage } from '../../domain/session-limits.ts'
import type { SessionLimit, SessionUsage } from '../../domain/session-limits.ts'
import type {
  ClaimOutcome,
  EndReason,
  FailureCode,
  SessionStatus,
  SpawnMode,
  StartPhases,
} from '../../domain/session.ts'

/** What the session was opened with, by its request and its agent, and is needed again when it moves. */
export type SessionRequest = {
  /** Name → sealed value. */
  env_vars?: Record<string, string>
  files?: { path: string; content_base64: string }[]
  /** Those of the gateway, by id, name or alias. */
  mcp_servers?: string[]
}

/** The checkpoint that a session began with. */
export type ForkedFrom = { session_id: string; checkpoint_id: string; turn_id: string }

export type SessionRow = {
  id: string
  agent_id: string
  status: SessionStatus
  phase: string | null
  phase_detail: string | null
  title: string | null
  end_reason: EndReason | null
  failure_code: FailureCode | null
  failure_reason: string | null
  spawn_mode: SpawnMode
  claim_outcome: ClaimOutcome
  idempotency_key: string | null
  body_hash: string | null
  request: SessionRequest
  model: string
  prompt: string | null
  sandbox_id: string | null
  /** Sandboxes assigned so far; 0 before the first. */
  attempt: number
  /** The attempt that was last bound: equal to `attempt` once the harness has been told who it works for. */
  bound_attempt: number
  harness_session_id: string | null
  /** Moment → milliseconds since the request. */
  phases: StartPhases
  last_seq: number
  idle_timeout_ms: number
  created_at: Date
  ready_at: Date | null
  last_activity_at: Date
  max_age_at: Date
  creating_deadline_at: Date
  ended_at: Date | null
  origin: Record<string, unknown> | null
  created_by: string
  /** As the agent's was when the session was made. */
  permissions: PermissionPolicy
  max_turns: number | null
  max_cost_usd: number | null
  /** Set while it takes no more messages. */
  limit_reached: SessionLimit | null
  usage: SessionUsage
  /** Number of the last turn behind which a checkpoint was stored, or will never be; 0: none. */
  checkpoint_seq: number
  /** In a row. */
  checkpoint_failures: number
  /** Not tried before then. */
  checkpoint_retry_at: Date | null
  /** Somebody wants it in another sandbox. */
  restart_requested_at: Date | null
  forked_from: ForkedFrom | null
}

export const Session = defineEntity({
  name: 'Session',
  tableName: 'session',
  properties: {
    id: p.uuid().primary(),
    agent_id: p.uuid(),
    status: p.text(),
    phase: p.text().nullable(),
    phase_detail: p.text().nullable(),
    title: p.text().nullable(),
    end_reason: p.text().nullable(),
    failure_code: p.text().nullable(),
    failure_reason: p.text().nullable(),
    spawn_mode: p.text(),
    claim_outcome: p.text(),
    idempotency_key: p.text().nullable(),
    body_hash: p.text().nullable(),
    request: p.json<SessionRequest>(),
    model: p.text(),
    prompt: p.text().nullable(),
    sandbox_id: p.uuid().nullable(),
    attempt: p.integer(),
    bound_attempt: p.integer(),
    harness_session_id: p.text().nullable(),
    phases: p.json<StartPhases>(),
    last_seq: p.integer(),
    idle_timeout_ms: p.integer(),
    created_at: p.datetime(3),
    ready_at: p.datetime(3).nullable(),
    last_activity_at: p.datetime(3),
    max_age_at: p.datetime(3),
    creating_deadline_at: p.datetime(3),
    ended_at: p.datetime(3).nullable(),
    origin: p.json<Record<string, unknown>>().nullable(),
    created_by: p.text(),
    permissions: p.json<PermissionPolicy>().defaultRaw(`'{"default": "allow"}'`),
    max_turns: p.integer().nullable(),
    max_cost_usd: p.double().nullable(),
    limit_reached: p.text().nullable(),
    usage: p.json<SessionUsage>().defaultRaw(`'${JSON.stringify(noUsage)}'`),
    checkpoint_seq: p.integer().defaultRaw('0'),
    checkpoint_failures: p.integer().defaultRaw('0'),
    checkpoint_retry_at: p.datetime(3).nullable(),
    restart_requested_at: p.datetime(3).nullable(),
    forked_from: p.json<ForkedFrom>().nullable(),
  },
})
