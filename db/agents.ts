import type { AgentRow } from './entities/agent.ts'
import { endSession } from './session-end.ts'
import type { Sql } from './sql.ts'

export type NewAgent = Omit<AgentRow, 'last_session_at' | 'deleted_at' | 'created_at' | 'updated_at'>
export type AgentPatch = Partial<Omit<AgentRow, 'id' | 'created_at' | 'created_by' | 'deleted_at'>>
/** An agent as lists show it. */
export type ListedAgent = AgentRow & { session_count: number; has_active_session: boolean }

const NEW_COLUMNS = [
  'id', 'name', 'model', 'prompt', 'tools', 'harness_id', 'harness_image', 'repo_url', 'branch', 'setup_cmd', 'pfp_url', 'mcp_servers',
  'env_vars', 'env_var_hosts', 'allow_out', 'deny_out', 'resources', 'permissions', 'max_turns', 'max_cost_usd', 'projects', 'preload_memory_limit', 'template_hash', 'created_by',
] as const // prettier-ignore

const PATCHABLE = new Set<string>([
  ...NEW_COLUMNS.filter((column) => column !== 'id' && column !== 'created_by'),
  'last_session_at',
])

export const insertAgent = async (sql: Sql, agent: NewAgent): Promise<AgentRow> => {
  const holes = NEW_COLUMNS.map((_, i) => `$${i + 1}`).join(', ')
  const text = `insert into agent (${NEW_COLUMNS.join(', ')}, created_at, updated_at) values (${holes}, now(), now()) returning *`
  return (await sql.one<AgentRow>(
    text,
    NEW_COLUMNS.map((column) => agent[column]),
  ))!
}

/** @returns null when there is none, or it was deleted */
export const getAgent = (sql: Sql, id: string): Promise<AgentRow | null> =>
  sql.one<AgentRow>('select * from agent where id = $1 and deleted_at is null', [id])

/** Within a transaction: nobody else changes or deletes it until the end. Sessions can be made of it meanwhile. */
export const lockAgent = (tx: Sql, id: string): Promise<AgentRow | null> =>
  tx.one<AgentRow>('select * from agent where id = $1 and deleted_at is null for no key update', [id])

/** Also a deleted one: sessions outlive their agent. */
export const getAgentAny = (sql: Sql, id: string): Promise<AgentRow | null> =>
  sql.one<AgentRow>('select * from agent where id = $1', [id])

const SORTS = {
  created_at: 'a.created_at',
  name: 'a.name',
  harness_id: 'a.harness_id',
  sessions: 'session_count',
} as const
export type AgentSort = keyof typeof SORTS

export const listAgents = async (
  sql: Sql,
  page: { limit: number; offset: number; sort?: AgentSort; order?: 'asc' | 'desc'; search?: string },
): Promise<{ data: ListedAgent[]; total: number }> => {
  const search =
    page.search === undefined || page.search === '' ? null : `%${page.search.replaceAll(/[\\%_]/g, '\\$&')}%`
  const matches = `a.deleted_at is null and ($1::text is null or a.name ilike $1 or a.id::text ilike $1 or a.harness_id ilike $1)`
  const order = page.order === 'asc' ? 'asc' : 'desc'
  const data = await sql.query<ListedAgent>(
    `select a.*, s.session_count, exists (
       select from session where agent_id = a.id and status in ('creating', 'ready')) has_active_session
     from agent a, lateral (select count(*)::int session_count from session where agent_id = a.id) s
     where ${matches} order by ${SORTS[page.sort ?? 'created_at']} ${order} nulls last, a.id limit $2 offset $3`,
    [search, page.limit, page.offset],
  )
  const total = await sql.one<{ total: number }>(`select count(*)::int total from agent a where ${matches}`, [search])
  return { data, total: total!.total }
}

export const updateAgent = (sql: Sql, id: string, patch: AgentPatch): Promise<AgentRow | null> => {
  const fields = Object.entries(patch).filter(([column, value]) => PATCHABLE.has(column) && value !== undefined)
  if (fields.length === 0) return getAgent(sql, id)
  const sets = fields.map(([column], i) => `${column} = $${i + 2}`).join(', ')
  return sql.one<AgentRow>(
    `update agent set ${sets}, updated_at = now() where id = $1 and deleted_at is null returning *`,
    [id, ...fields.map(([, value]) => value)],
  )
}

/**
 * Deletes an agent: it is not found any more, its live sessions end as `agent_deleted`, its pool drains. The sessions end one by one after the deletion: what a
 * crash leaves over is ended by its workflow, which is told in the same transaction.
 * @returns false when there was none
 */
export const markAgentDeleted = async (sql: Sql, id: string): Promise<boolean> => {
  const gone = await sql.tx(async (tx) => {
    // Waits for creates under way, which hold the row for key share; those that come later find it deleted.
    const agent = await tx.one('select id from agent where id = $1 and deleted_at is null for update', [id])
    if (agent === null) return false
    await tx.query('update agent set deleted_at = now(), updated_at = now() where id = $1', [id])
    await tx.query(
      `insert into outbox (kind, subject, created_at, attempts, next_at)
       select 'signal_session', id, now(), 0, now() from session where agent_id = $1 and status in ('creating', 'ready')
       union all select 'poke_pool', $1::uuid, now(), 0, now()`,
      [id],
    )
    return true
  })
  if (!gone) return false
  const live = await sql.query<{ id: string }>(
    "select id from session where agent_id = $1 and status in ('creating', 'ready') order by id",
    [id],
  )
  for (const session of live) await endSession(sql, session.id, { status: 'dead', endReason: 'agent_deleted' })
  return true
}
