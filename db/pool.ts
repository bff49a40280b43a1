import type { AgentRow } from './entities/agent.ts'
import type { PoolStateRow } from './entities/pool.ts'
import type { SandboxRow } from './entities/sandbox.ts'
import type { Sql } from './sql.ts'

/** One agent as the division of the budget sees it. */
export type PoolAgent = {
  agent_id: string
  last_session_at: Date | null
  /** Sessions in the last hour. */
  arrivals: number
  /** Mean time from row to warm of its last ten pool sandboxes; null when there were none. */
  lead_ms: number | null
  provisioning: number
  warm: number
  backoff_until: Date | null
  breaker_open: boolean
  breaker_reason: string | null
  failures: number
  want: number
  /** At its last decision. */
  share: number
  deleted: boolean
}

/** Every agent that is in the window, or still holds pool sandboxes, at one moment. */
export const poolSnapshot = (sql: Sql, recentAgentHours: number): Promise<PoolAgent[]> =>
  sql.query<PoolAgent>(
    `with held as (
       select agent_id, count(*) filter (where state = 'provisioning')::int provisioning, count(*) filter (where state = 'warm' and not retiring)::int warm
       from sandbox where purpose = 'pool' and state in ('provisioning', 'warm') group by agent_id)
     select a.id agent_id, a.last_session_at, coalesce(r.arrivals, 0) arrivals, l.lead_ms, coalesce(h.provisioning, 0) provisioning, coalesce(h.warm, 0) warm,
       p.backoff_until, coalesce(p.breaker_open, false) breaker_open, p.breaker_reason, coalesce(p.failures, 0) failures, coalesce(p.want, 0) want, coalesce(p.share, 0) share,
       a.deleted_at is not null deleted
     from agent a left join held h on h.agent_id = a.id left join pool_state p on p.agent_id = a.id,
     lateral (select count(*)::int arrivals from session where agent_id = a.id and created_at > now() - interval '1 hour') r,
     lateral (select avg(ms)::float8 lead_ms from (
       select extract(epoch from ready_at - created_at) * 1000 ms from sandbox
       where agent_id = a.id and ready_at is not null and purpose = 'pool' order by ready_at desc limit 10) last) l
     where (a.deleted_at is null and a.last_session_at > now() - make_interval(hours => $1::int)) or h.agent_id is not null
     order by a.last_session_at desc nulls last, a.id`,
    [recentAgentHours],
  )

/** The pool sandboxes of an agent that are starting or waiting, oldest first. */
export const poolSandboxes = (sql: Sql, agentId: string): Promise<SandboxRow[]> =>
  sql.query<SandboxRow>(
    "select * from sandbox where agent_id = $1 and purpose = 'pool' and state in ('provisioning', 'warm') order by coalesce(ready_at, created_at)",
    [agentId],
  )

export const recordDecision = async (
  sql: Sql,
  agentId: AgentRow['id'],
  decided: { share: number; decision: string; reason: string; want: number },
): Promise<void> => {
  await sql.query(
    `insert into pool_state (agent_id, share, decision, reason, decided_at, want, failures, breaker_open) values ($1, $2, $3, $4, now(), $5, 0, false)
     on conflict (agent_id) do update set share = $2, decision = $3, reason = $4, decided_at = now(), want = $5`,
    [agentId, decided.share, decided.decision, decided.reason, decided.want],
  )
}

/** A start of this agent's template failed: the next one waits, and after too many the breaker opens with the reason. */
export const recordPoolFailure = async (
  sql: Sql,
  agentId: string,
  failure: { reason: string; backoffMs: (failures: number) => number; breakerFailures: number },
): Promise<PoolStateRow> =>
  sql.tx(async (tx) => {
    const counted = await tx.one<PoolStateRow>(
      `insert into pool_state (agent_id, share, decision, reason, decided_at, want, failures, breaker_open, last_failure_at)
       values ($1, 0, 'backing off', $2, now(), 0, 1, false, now())
       on conflict (agent_id) do update set failures = pool_state.failures + 1, last_failure_at = now() returning *`,
      [agentId, failure.reason],
    )
    const failures = counted!.failures
    const row = await tx.one<PoolStateRow>(
      `update pool_state set backoff_until = now() + make_interval(secs => $2::bigint / 1000.0), breaker_open = $3,
         breaker_reason = case when $3 then left($4, 1000) else breaker_reason end where agent_id = $1 returning *`,
      [agentId, Math.round(failure.backoffMs(failures)), failures >= failure.breakerFailures, failure.reason],
    )
    return row!
  })

/** The pool of this agent may try again now; what it counted stays. @returns whether it was waiting */
export const endPoolWait = async (sql: Sql, agentId: string): Promise<boolean> =>
  (await sql.one(
    'update pool_state set backoff_until = null where agent_id = $1 and backoff_until > now() returning agent_id',
    [agentId],
  )) !== null

/** A good start, or another template, closes the breaker and ends the wait. @returns whether anything was open or counted */
export const recordPoolSuccess = async (sql: Sql, agentId: string): Promise<boolean> =>
  (await sql.one(
    `update pool_state set failures = 0, backoff_until = null, breaker_open = false, breaker_reason = null
     where agent_id = $1 and (failures > 0 or breaker_open) returning agent_id`,
    [agentId],
  )) !== null
