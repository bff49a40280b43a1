import type { ClaimOutcome, SessionStatus } from '../domain/session.ts'
import type { SandboxState } from '../domain/sandbox.ts'
import type { ClaimRow } from './entities/pool.ts'
import type { Sql } from './sql.ts'

export type PoolCounts = { provisioning: number; warm: number; claimed: number; dead: number }

/** Sandboxes of one agent, or of all, by what the pool calls them; `dead`: to be removed. */
export const poolCounts = async (sql: Sql, agentId: string | null = null): Promise<PoolCounts> =>
  (await sql.one<PoolCounts>(
    `select count(*) filter (where state = 'provisioning' and purpose = 'pool')::int provisioning, count(*) filter (where state = 'warm')::int warm,
       count(*) filter (where state = 'claimed')::int claimed, count(*) filter (where state in ('ending', 'failed'))::int dead
     from sandbox where state <> 'gone' and ($1::uuid is null or agent_id = $1)`,
    [agentId],
  ))!

export type PoolByAgent = PoolCounts & {
  agent_id: string
  agent_name: string | null
  oldest_warm_at: Date | null
  share: number | null
  decision: string | null
  reason: string | null
}

export const poolByAgent = (sql: Sql): Promise<PoolByAgent[]> =>
  sql.query<PoolByAgent>(
    `select a.id agent_id, a.name agent_name, p.share, p.decision, p.reason,
       count(b.id) filter (where b.state = 'provisioning' and b.purpose = 'pool')::int provisioning, count(b.id) filter (where b.state = 'warm')::int warm,
       count(b.id) filter (where b.state = 'claimed')::int claimed, count(b.id) filter (where b.state in ('ending', 'failed'))::int dead,
       min(b.ready_at) filter (where b.state = 'warm') oldest_warm_at
     from agent a left join sandbox b on b.agent_id = a.id and b.state <> 'gone' left join pool_state p on p.agent_id = a.id
     where b.id is not null or p.share > 0 group by a.id, p.agent_id order by warm desc, provisioning desc, a.id`,
  )

export const sessionCounts = async (sql: Sql): Promise<Record<SessionStatus, number>> => {
  const rows = await sql.query<{ status: SessionStatus; count: number }>(
    'select status, count(*)::int from session group by status',
  )
  return {
    creating: 0,
    ready: 0,
    failed: 0,
    dead: 0,
    ...Object.fromEntries(rows.map(({ status, count }) => [status, count])),
  }
}

export const sessionsByAgent = (
  sql: Sql,
): Promise<{ agent_id: string; agent_name: string | null; creating: number; ready: number }[]> =>
  sql.query(
    `select a.id agent_id, a.name agent_name, count(*) filter (where s.status = 'creating')::int creating, count(*) filter (where s.status = 'ready')::int ready
     from session s join agent a on a.id = s.agent_id where s.status in ('creating', 'ready') group by a.id order by ready desc, a.id`,
  )

export type ClaimStats = {
  outcomes: Partial<Record<ClaimOutcome, number>>
  /** Milliseconds from request to ready of the sessions of the window. */
  starts: { warm: Percentiles | null; cold: Percentiles | null }
  /** Seconds that warm sandboxes waited, within the window. */
  idle_sandbox_seconds: number
}
export type Percentiles = { count: number; p50_ms: number; p95_ms: number; p99_ms: number }

/** What the pool gave and what it cost in the last `hours`. */
export const claimStats = async (sql: Sql, hours: number): Promise<ClaimStats> => {
  const outcomes = await sql.query<{ outcome: ClaimOutcome; count: number }>(
    'select outcome, count(*)::int from claim where created_at > now() - make_interval(hours => $1::int) group by outcome',
    [hours],
  )
  const starts = await sql.query<Percentiles & { spawn_mode: 'warm' | 'cold' }>(
    `select spawn_mode, count(*)::int, percentile_cont(0.5) within group (order by ms)::float8 p50_ms, percentile_cont(0.95) within group (order by ms)::float8 p95_ms,
       percentile_cont(0.99) within group (order by ms)::float8 p99_ms
     from (select spawn_mode, extract(epoch from ready_at - created_at) * 1000 ms from session
           where ready_at is not null and created_at > now() - make_interval(hours => $1::int)) s group by spawn_mode`,
    [hours],
  )
  const idle = await sql.one<{ seconds: number }>(
    `select coalesce(sum(extract(epoch from least(coalesce(claimed_at, ended_at, now()), now()) - greatest(ready_at, now() - make_interval(hours => $1::int)))), 0)::float8 seconds
     from sandbox where purpose = 'pool' and ready_at is not null and coalesce(claimed_at, ended_at, now()) > now() - make_interval(hours => $1::int)`,
    [hours],
  )
  const of = (mode: 'warm' | 'cold'): Percentiles | null => {
    const row = starts.find(({ spawn_mode: spawned }) => spawned === mode)
    return row === undefined ? null : { count: row.count, p50_ms: row.p50_ms, p95_ms: row.p95_ms, p99_ms: row.p99_ms }
  }
  return {
    outcomes: Object.fromEntries(outcomes.map(({ outcome, count }) => [outcome, count])),
    starts: { warm: of('warm'), cold: of('cold') },
    idle_sandbox_seconds: idle!.seconds,
  }
}

export const claimsOfSession = (sql: Sql, sessionId: string): Promise<ClaimRow[]> =>
  sql.query<ClaimRow>('select * from claim where session_id = $1 order by created_at', [sessionId])

/** Sandboxes by state, for the gauges. */
export const sandboxCounts = async (sql: Sql): Promise<{ state: SandboxState; count: number }[]> =>
  sql.query("select state, count(*)::int from sandbox where state <> 'gone' group by state")
