import type { SandboxRow } from './entities/sandbox.ts'
import { endSession, lockSession } from './session-end.ts'
import type { Ended } from './session-end.ts'
import { pgArray } from './sql.ts'
import type { Sql } from './sql.ts'

/** Queries of the workflows' activities that concern several subjects at once. */

/** What a session's workflow is started with. @returns null for one that has ended and left no sandbox, or is not there */
export const sessionToStart = (
  sql: Sql,
  id: string,
): Promise<{ id: string; agent_id: string; title: string | null; agent_name: string | null } | null> =>
  sql.one(
    `select s.id, s.agent_id, s.title, a.name agent_name from session s join agent a on a.id = s.agent_id
     where s.id = $1 and (s.status in ('creating', 'ready')
       or exists (select from sandbox b where b.session_id = s.id and b.state in ('ending', 'failed')))`,
    [id],
  )

/** Sandboxes of a session that are of no use any more and still have to be removed. */
export const litterOfSession = async (sql: Sql, sessionId: string): Promise<string[]> => {
  const rows = await sql.query<{ id: string }>(
    "select id from sandbox where session_id = $1 and state in ('ending', 'failed') order by created_at",
    [sessionId],
  )
  return rows.map(({ id }) => id)
}

type DueEnd = 'agent_deleted' | 'max_lifetime' | 'idle_timeout'

/** Which deadline of a session has passed; null: none. */
export const dueEnd = async (sql: Sql, sessionId: string): Promise<DueEnd | null> => {
  const due = await sql.one<{ reason: DueEnd | null }>(
    `select case when a.deleted_at is not null then 'agent_deleted' when s.max_age_at <= now() then 'max_lifetime'
       when s.status = 'ready' and s.last_activity_at + make_interval(secs => s.idle_timeout_ms / 1000.0) <= now()
         and not exists (select from turn t where t.session_id = s.id and t.status in ('queued', 'running')) then 'idle_timeout' end as reason
     from session s join agent a on a.id = s.agent_id where s.id = $1`,
    [sessionId],
  )
  return due?.reason ?? null
}

/**
 * Ends a session whose idle or age deadline has passed or whose agent was deleted, and no other: a message that came a moment ago keeps it alive.
 * @returns null when no deadline has passed
 */
export const endIfDue = (sql: Sql, sessionId: string): Promise<Ended | null> =>
  sql.tx(async (tx) => {
    if ((await lockSession(tx, sessionId)) === null) return null
    const endReason = await dueEnd(tx, sessionId)
    return endReason === null ? null : endSession(tx, sessionId, { status: 'dead', endReason })
  })

/** Live sessions whose deadline passed so long ago that their workflow should have ended them; `endIfDue` decides. */
export const overdueSessions = (sql: Sql, graceMs: number): Promise<{ id: string }[]> =>
  sql.query(
    `select s.id from session s join agent a on a.id = s.agent_id,
       lateral (select now() - make_interval(secs => $1::int / 1000.0) as moment) due
     where s.status in ('creating', 'ready') and (s.max_age_at < due.moment or a.deleted_at < due.moment
       or (s.status = 'ready' and s.last_activity_at + make_interval(secs => s.idle_timeout_ms / 1000.0) < due.moment
         and not exists (select from turn t where t.session_id = s.id and t.status in ('queued', 'running'))))`,
    [graceMs],
  )

/** Takes a pool sandbox out of the pool, also one that is still starting. One that was claimed a moment ago stays with its session. */
export const retirePooled = (sql: Sql, id: string): Promise<SandboxRow | null> =>
  sql.one<SandboxRow>(
    `update sandbox set state = 'ending', epoch = epoch + 1
     where id = $1 and purpose = 'pool' and session_id is null and state in ('provisioning', 'warm') returning *`,
    [id],
  )

/** Pool sandboxes of an agent that still have to be removed. */
export const litterOfPool = async (sql: Sql, agentId: string): Promise<string[]> => {
  const rows = await sql.query<{ id: string }>(
    "select id from sandbox where agent_id = $1 and session_id is null and state in ('ending', 'failed') order by created_at",
    [agentId],
  )
  return rows.map(({ id }) => id)
}

/** Asks the pools of these agents to look again. */
export const pokePools = async (sql: Sql, agentIds: string[]): Promise<void> => {
  if (agentIds.length === 0) return
  await sql.query(
    `insert into outbox (kind, subject, created_at, attempts, next_at) select 'poke_pool', id, now(), 0, now() from unnest($1::uuid[]) as id`,
    [pgArray(agentIds)],
  )
}

/** Asks the pools that would start more, were the limits not reached: a place has become free. @returns how many */
export const pokeWaitingPools = async (sql: Sql, exceptAgentId: string): Promise<number> => {
  const poked = await sql.query(
    `insert into outbox (kind, subject, created_at, attempts, next_at)
     select 'poke_pool', agent_id, now(), 0, now() from pool_state where want > 0 and agent_id <> $1 returning id`,
    [exceptAgentId],
  )
  return poked.length
}

/** Pools that have decided nothing for so long, though they have something to do: their workflow is wedged, or not there. */
export const silentPools = async (sql: Sql, recentAgentHours: number, silentMs: number): Promise<string[]> => {
  const busy = await poolsToPoke(sql, recentAgentHours)
  const rows = await sql.query<{ id: string }>(
    `select agent_id id from pool_state where agent_id = any($1::uuid[]) and decided_at < now() - make_interval(secs => $2::int / 1000.0)`,
    [pgArray(busy), silentMs],
  )
  return rows.map(({ id }) => id)
}

/** Of these, the agents whose pool does something, or has not been asked for long: the janitor's net under lost pokes. */
export const poolsToCheck = async (sql: Sql, recentAgentHours: number): Promise<string[]> => {
  const busy = await poolsToPoke(sql, recentAgentHours)
  const rows = await sql.query<{ id: string }>(
    `select a.id from unnest($1::uuid[]) as a (id) left join pool_state p on p.agent_id = a.id
     where p.agent_id is null or p.share > 0 or p.want > 0 or p.decided_at < now() - interval '30 minutes'
       or exists (select from sandbox s where s.agent_id = a.id and s.purpose = 'pool' and s.state in ('provisioning', 'warm'))`,
    [pgArray(busy)],
  )
  return rows.map(({ id }) => id)
}

/** Agents whose pool has something to do after a start of the platform: used lately, or holding sandboxes. */
export const poolsToPoke = async (sql: Sql, recentAgentHours: number): Promise<string[]> => {
  const rows = await sql.query<{ id: string }>(
    `select a.id from agent a
     where (a.deleted_at is null and a.last_session_at > now() - make_interval(hours => $1::int))
       or exists (select from sandbox s where s.agent_id = a.id and s.purpose = 'pool' and s.state in ('provisioning', 'warm'))`,
    [recentAgentHours],
  )
  return rows.map(({ id }) => id)
}

/** Sandboxes that belong to nobody: their session has ended, or went on in another one. */
export const strandedSandboxes = (sql: Sql, graceMs: number): Promise<SandboxRow[]> =>
  sql.query<SandboxRow>(
    `select b.* from sandbox b join session s on s.id = b.session_id
     where b.state in ('provisioning', 'claimed') and coalesce(b.claimed_at, b.created_at) < now() - make_interval(secs => $1::int / 1000.0)
       and (s.sandbox_id is distinct from b.id or s.ended_at < now() - make_interval(secs => $1::int / 1000.0))`,
    [graceMs],
  )

/** Sandboxes of ended sessions that still exist so long after the end; must be 0. */
export const leakedSandboxes = async (sql: Sql, graceMs: number): Promise<number> =>
  (await sql.one<{ leaked: number }>(
    `select count(*)::int leaked from sandbox b join session s on s.id = b.session_id
     where b.state <> 'gone' and s.ended_at < now() - make_interval(secs => $1::int / 1000.0)`,
    [graceMs],
  ))!.leaked
