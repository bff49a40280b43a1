import { EVENT_CHANNEL } from '../domain/names.ts'
import type { SessionPhase, SessionStatus, StartPhases } from '../domain/session.ts'
import type { SandboxState } from '../domain/sandbox.ts'
import type { TurnStatus } from '../domain/turn.ts'
import type { SessionRow } from './entities/session.ts'
import type { PageCursor, Sql } from './sql.ts'
import { RETURNING_NEWS, TELL_WEBHOOKS } from './webhook-events.ts'

export const getSession = (sql: Sql, id: string): Promise<SessionRow | null> =>
  sql.one<SessionRow>('select * from session where id = $1', [id])

/** Newest first. Lists carry no blobs: `request` is empty and `prompt` null. */
export const listSessions = (
  sql: Sql,
  page: {
    agentId?: string
    status?: SessionStatus
    needsInput?: boolean
    limit: number
    offset?: number
    after?: PageCursor
  },
): Promise<SessionRow[]> => {
  // Only the conditions that are asked for, so that each form has a plan of its own that walks an index.
  const params: unknown[] = [page.limit, page.offset ?? 0]
  const hole = (value: unknown): string => `$${params.push(value)}`
  const conditions = ['true']
  if (page.agentId !== undefined) conditions.push(`agent_id = ${hole(page.agentId)}`)
  if (page.status !== undefined) conditions.push(`status = ${hole(page.status)}`)
  if (page.needsInput !== undefined)
    conditions.push(
      `${page.needsInput ? '' : 'not '}exists (select from permission p where p.session_id = session.id and p.status = 'open')`,
    )
  if (page.after !== undefined)
    conditions.push(`(created_at, id) < (${hole(page.after.createdAt)}::timestamptz, ${hole(page.after.id)}::uuid)`)
  return sql.query<SessionRow>(
    `select id, agent_id, status, phase, phase_detail, title, end_reason, failure_code, failure_reason, spawn_mode, claim_outcome, model,
       '{}'::jsonb request, null prompt, idempotency_key, body_hash, sandbox_id, attempt, bound_attempt, harness_session_id, phases, last_seq, idle_timeout_ms, created_at,
       ready_at, last_activity_at, max_age_at, creating_deadline_at, ended_at, origin, created_by, permissions, max_turns, max_cost_usd, limit_reached, usage,
       checkpoint_seq, checkpoint_failures, checkpoint_retry_at, restart_requested_at, forked_from
     from session where ${conditions.join(' and ')} order by created_at desc, id desc limit $1 offset $2`,
    params,
  )
}

/**
 * The harness has been told who it works for: `creating` becomes `ready`; a moved session, which was `ready` all along, says so in its log. A compare-and-set
 * on the attempt; repeated, it answers the same.
 * @returns null when the session has ended or moved on meanwhile: the sandbox is of no use to it
 */
export const sessionReady = async (
  sql: Sql,
  bound: {
    sessionId: string
    attempt: number
    harnessSessionId: string
    phases: StartPhases
    /** For the log: why it moved, what was restored. */
    told?: Record<string, unknown>
  },
): Promise<SessionRow | null> => {
  const row = await sql.one<SessionRow>(
    `with before as (select status from session where id = $1), bound as (
       update session set status = 'ready', phase = 'ready', phase_detail = null, bound_attempt = $2, harness_session_id = $3,
         phases = case when status = 'creating' then phases || $4::jsonb else phases end, ready_at = coalesce(ready_at, now()),
         last_activity_at = now(), restart_requested_at = null, last_seq = last_seq + 1
       where id = $1 and attempt = $2 and bound_attempt < $2 and status in ('creating', 'ready')
         and exists (select from sandbox where id = session.sandbox_id and state = 'claimed') returning *),
     logged as (
       insert into event (session_id, seq, type, data, created_at)
       select id, last_seq, case before.status when 'creating' then 'session.ready' else 'sandbox_moved' end,
         coalesce($5::jsonb, '{}') || jsonb_build_object('attempt', attempt, 'spawn_mode', spawn_mode, 'phases', phases), clock_timestamp() from bound, before
       ${RETURNING_NEWS}), ${TELL_WEBHOOKS}
     select bound.*, pg_notify('${EVENT_CHANNEL}', $1::text)::text as notified from bound`,
    [bound.sessionId, bound.attempt, bound.harnessSessionId, bound.phases, bound.told ?? null],
  )
  if (row !== null) return row
  const now = await getSession(sql, bound.sessionId)
  return now !== null && now.status === 'ready' && now.attempt === bound.attempt && now.bound_attempt === bound.attempt
    ? now
    : null
}

/** Notes how far the start of a `creating` session has come; the time of each phase counts from the request. */
export const setPhase = async (
  sql: Sql,
  sessionId: string,
  phase: SessionPhase,
  detail: string | null = null,
): Promise<void> => {
  await sql.query(
    `with noted as (
       update session set phase = $2, phase_detail = left($3, 500), last_seq = last_seq + 1,
         phases = phases || jsonb_build_object($2::text, (extract(epoch from clock_timestamp() - created_at) * 1000)::int)
       where id = $1 and status = 'creating' and phase is distinct from $2 returning id, last_seq),
     logged as (
       insert into event (session_id, seq, type, data, created_at)
       select id, last_seq, 'session.phase', jsonb_build_object('phase', $2::text, 'detail', $3::text), clock_timestamp() from noted)
     select pg_notify('${EVENT_CHANNEL}', id::text)::text from noted`,
    [sessionId, phase, detail],
  )
}

/** Somebody types in its terminal. The workflow looks at it when its deadline is there, so it need not be told. */
export const typedIn = async (sql: Sql, id: string): Promise<void> => {
  await sql.query("update session set last_activity_at = now() where id = $1 and status = 'ready'", [id])
}

/** Its harness has worked, whoever asked it to, up to so many milliseconds ago. */
export const hasWorked = async (sql: Sql, id: string, agoMs: number): Promise<void> => {
  await sql.query(
    `update session set last_activity_at = greatest(last_activity_at, now() - make_interval(secs => $2::float8 / 1000))
     where id = $1 and status = 'ready'`,
    [id, agoMs],
  )
}

/** Asks the workflow of a session to look again, in a transaction or alone. */
export const wakeSession = async (sql: Sql, id: string): Promise<void> => {
  await sql.query(
    "insert into outbox (kind, subject, created_at, attempts, next_at) values ('signal_session', $1, now(), 0, now())",
    [id],
  )
}

/** All that decides what a session does next. */
export type SessionPlan = {
  status: SessionStatus
  agent_id: string
  title: string | null
  attempt: number
  bound_attempt: number
  sandbox_id: string | null
  sandbox_state: SandboxState | null
  sandbox_name: string | null
  turn_id: string | null
  turn_status: TurnStatus | null
  turn_sandbox_id: string | null
  idle_at: Date
  /** Passed when the agent has been deleted: its sessions end with it. */
  max_age_at: Date
  creating_deadline_at: Date
  end_reason: string | null
  /** When a checkpoint is to be taken behind the last turn; null: none is due. */
  checkpoint_at: Date | null
  restart: boolean
}

export const loadSessionPlan = (sql: Sql, id: string): Promise<SessionPlan | null> =>
  sql.one<SessionPlan>(
    `select s.status, s.agent_id, s.title, s.attempt, s.bound_attempt, s.sandbox_id, b.state sandbox_state, b.name sandbox_name, t.id turn_id, t.status turn_status,
       t.sandbox_id turn_sandbox_id, s.last_activity_at + make_interval(secs => s.idle_timeout_ms / 1000.0) idle_at, least(s.max_age_at, a.deleted_at) max_age_at,
       s.creating_deadline_at, s.end_reason, s.restart_requested_at is not null restart,
       case when b.state = 'claimed' and s.bound_attempt = s.attempt and s.checkpoint_seq < (
         select seq from turn where session_id = s.id and sandbox_id = s.sandbox_id and started_at is not null order by seq desc limit 1)
       then coalesce(s.checkpoint_retry_at, s.created_at) end checkpoint_at
     from session s join agent a on a.id = s.agent_id left join sandbox b on b.id = s.sandbox_id
     left join lateral (
       select id, status, sandbox_id from turn where session_id = s.id and status in ('queued', 'running')
       order by status = 'running' desc, seq limit 1) t on true
     where s.id = $1`,
    [id],
  )

/** Live sessions with their sandboxes, for the janitor; `creating` and `ready` only. */
export type LiveSession = { id: string; agent_id: string; status: SessionStatus; created_at: Date }

export const liveSessions = (sql: Sql): Promise<LiveSession[]> =>
  sql.query("select id, agent_id, status, created_at from session where status in ('creating', 'ready')")
