import type { ClaimOutcome, SessionStatus, SpawnMode } from '../domain/session.ts'
import type { SandboxState } from '../domain/sandbox.ts'
import type { PermissionRow } from './entities/permission.ts'
import type { PoolStateRow } from './entities/pool.ts'
import type { SandboxRow } from './entities/sandbox.ts'
import { movesOf } from './moves.ts'
import { listPermissions } from './permissions.ts'
import type { Sql } from './sql.ts'

/** Sandboxes of an agent as statistics count them; `dead`: failed, or being removed. */
export type PoolCounts = { provisioning: number; warm: number; claimed: number; dead: number }

const COUNTS = `
  count(*) filter (where s.state = 'provisioning')::int provisioning,
  count(*) filter (where s.state = 'warm')::int warm,
  count(*) filter (where s.state = 'claimed')::int claimed,
  count(*) filter (where s.state in ('ending', 'failed'))::int dead`

export type PoolByAgent = PoolCounts & { agent_id: string; agent_name: string | null; oldest_warm_at: Date | null }

const poolByAgent = (sql: Sql): Promise<PoolByAgent[]> =>
  sql.query(
    `select s.agent_id, a.name agent_name, ${COUNTS}, min(s.ready_at) filter (where s.state = 'warm') oldest_warm_at
     from sandbox s join agent a on a.id = s.agent_id where s.state <> 'gone'
     group by s.agent_id, a.name order by warm desc, provisioning desc, s.agent_id`,
  )

const claimOutcomes = async (sql: Sql): Promise<Partial<Record<ClaimOutcome, number>>> => {
  const rows = await sql.query<{ outcome: ClaimOutcome; count: number }>(
    "select outcome, count(*)::int count from claim where created_at > now() - interval '24 hours' group by outcome",
  )
  return Object.fromEntries(rows.map(({ outcome, count }) => [outcome, count]))
}

/** From warm to claimed, or to the end, or to now; only the part within the last 24 hours. */
const idleSeconds = async (sql: Sql): Promise<number> => {
  const row = await sql.one<{ seconds: number }>(
    `select coalesce(sum(greatest(0, extract(epoch from
       coalesce(claimed_at, ended_at, now()) - greatest(ready_at, now() - interval '24 hours')))), 0)::float8 seconds
     from sandbox where purpose = 'pool' and ready_at is not null
       and coalesce(claimed_at, ended_at, 'infinity') > now() - interval '24 hours'`,
  )
  return row?.seconds ?? 0
}

export type StartTimes = {
  spawn_mode: SpawnMode
  count: number
  p50_ms: number | null
  p95_ms: number | null
  p99_ms: number | null
}

const startTimes = (sql: Sql): Promise<StartTimes[]> => {
  const at = (q: number) =>
    `percentile_cont(${q}) within group (order by extract(epoch from ready_at - created_at) * 1000)::float8`
  return sql.query(
    `select spawn_mode, count(*)::int count, ${at(0.5)} p50_ms, ${at(0.95)} p95_ms, ${at(0.99)} p99_ms
     from session where ready_at is not null and created_at > now() - interval '24 hours' group by spawn_mode`,
  )
}

export type SessionsByAgent = { agent_id: string; agent_name: string | null; creating: number; ready: number }

const sessionsByAgent = (sql: Sql): Promise<SessionsByAgent[]> =>
  sql.query(
    `select s.agent_id, a.name agent_name, count(*) filter (where s.status = 'creating')::int creating,
       count(*) filter (where s.status = 'ready')::int ready
     from session s join agent a on a.id = s.agent_id where s.status in ('creating', 'ready')
     group by s.agent_id, a.name order by ready desc, creating desc, s.agent_id`,
  )

/** Live agents whose pool fails. */
const failingPools = (sql: Sql): Promise<(PoolStateRow & { agent_name: string | null })[]> =>
  sql.query(
    `select p.*, a.name agent_name from pool_state p join agent a on a.id = p.agent_id
     where a.deleted_at is null and (p.breaker_open or p.backoff_until > now())`,
  )

/** Sessions by status; those that are not there are left out. */
export const sessionCounts = async (sql: Sql): Promise<Partial<Record<SessionStatus, number>>> => {
  const rows = await sql.query<{ status: SessionStatus; count: number }>(
    'select status, count(*)::int count from session group by status',
  )
  return Object.fromEntries(rows.map(({ status, count }) => [status, count]))
}

/** Sandboxes that are not gone, by state: all of them, and those of the pool. */
export const sandboxCounts = async (
  sql: Sql,
): Promise<{ all: Partial<Record<SandboxState, number>>; pool: Partial<Record<SandboxState, number>> }> => {
  const rows = await sql.query<{ state: SandboxState; count: number; pool: number }>(
    `select state, count(*)::int count, (count(*) filter (where purpose = 'pool'))::int pool
     from sandbox where state <> 'gone' group by state`,
  )
  return {
    all: Object.fromEntries(rows.map(({ state, count }) => [state, count])),
    pool: Object.fromEntries(rows.map(({ state, pool }) => [state, pool])),
  }
}

export type AdminStats = Awaited<ReturnType<typeof adminStats>>

/** Everything that the statistics page shows, of the last 24 hours where it is about time. Reads a day of claims and sessions: not for hot paths. */
export const adminStats = async (sql: Sql) => {
  const [pools, outcomes, idle, starts, live, sessions, agents, failing] = await Promise.all([
    poolByAgent(sql),
    claimOutcomes(sql),
    idleSeconds(sql),
    startTimes(sql),
    sessionsByAgent(sql),
    sessionCounts(sql),
    sql.one<{ count: number }>('select count(*)::int count from agent where deleted_at is null'),
    failingPools(sql),
  ])
  return {
    pools,
    outcomes,
    /** Seconds that sandboxes of the pool waited warm. */
    idle_sandbox_seconds: idle,
    starts,
    sessions_by_agent: live,
    sessions,
    agents: agents?.count ?? 0,
    failing,
  }
}

/** What the database knows of a session beyond its row, for a diagnosis. */
export type SessionFacts = {
  /** The newest first. */
  sandboxes: SandboxRow[]
  /** Of its agent. */
  pool: PoolCounts
  poolState: PoolStateRow | null
  running: { id: string; started_at: Date | null } | null
  last_event_at: Date | null
  /** What its harness asks, the oldest question. */
  asks: Pick<PermissionRow, 'id' | 'title' | 'expires_at'> | null
  /** How often it went on in another sandbox. */
  moves: number
}

export const sessionFacts = async (
  sql: Sql,
  session: { id: string; agent_id: string; sandbox_id: string | null; attempt: number },
): Promise<SessionFacts> => {
  const [sandboxes, pool, poolState, running, last, asked, moves] = await Promise.all([
    sql.query<SandboxRow>(
      'select * from sandbox where session_id = $1 or id = $2 order by coalesce(claimed_at, created_at) desc, id limit 20',
      [session.id, session.sandbox_id],
    ),
    sql.one<PoolCounts>(`select ${COUNTS} from sandbox s where s.agent_id = $1 and s.state <> 'gone'`, [
      session.agent_id,
    ]),
    sql.one<PoolStateRow>('select * from pool_state where agent_id = $1', [session.agent_id]),
    sql.one<{ id: string; started_at: Date | null }>(
      "select id, started_at from turn where session_id = $1 and status = 'running' order by seq limit 1",
      [session.id],
    ),
    sql.one<{ created_at: Date }>('select created_at from event where session_id = $1 order by seq desc limit 1', [
      session.id,
    ]),
    listPermissions(sql, session.id, { status: 'open', limit: 200 }),
    session.attempt > 1 ? movesOf(sql, session.id) : [],
  ])
  return {
    sandboxes,
    pool: pool ?? { provisioning: 0, warm: 0, claimed: 0, dead: 0 },
    poolState,
    running,
    last_event_at: last?.created_at ?? null,
    asks: asked[0] ?? null,
    moves: moves.length,
  }
}
