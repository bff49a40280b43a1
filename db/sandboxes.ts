import type { Evidence } from './evidence.ts'
import type { FailureCode } from '../domain/session.ts'
import type { SandboxRow } from './entities/sandbox.ts'
import { pgArray } from './sql.ts'
import type { Sql } from './sql.ts'

export const getSandbox = (sql: Sql, id: string): Promise<SandboxRow | null> =>
  sql.one<SandboxRow>('select * from sandbox where id = $1', [id])

/** Serialises the one decision that counts over all agents. */
const POOL_LOCK = 7_312_026

export type Reservation = {
  id: string
  name: string
  agentId: string
  templateHash: string
  harnessId: string
  image: string
  driver: string
  /** The warm sandbox that this one replaces: it stays claimable, and gives its place in the budget to the new one. */
  replaces?: string
}

/**
 * Writes the row of a new pool sandbox, once per id, unless a global limit forbids it. The limits hold here, where the row is made, so no number of workflows
 * or workers can exceed them: provisioning and warm ones (without those being replaced) ≤ `poolSize`, provisioning ones ≤ `maxProvisioning`.
 * @returns null when a limit is reached, or the one to be replaced is no longer warm
 */
export const reservePoolSandbox = (
  sql: Sql,
  made: Reservation,
  limits: { poolSize: number; maxProvisioning: number },
): Promise<SandboxRow | null> =>
  sql.tx(async (tx) => {
    await tx.query('select pg_advisory_xact_lock($1)', [POOL_LOCK])
    const known = await getSandbox(tx, made.id)
    if (known !== null) return known
    const old =
      made.replaces === undefined
        ? null
        : await tx.one<{ was: boolean }>(
            "update sandbox b set retiring = true from (select id, retiring was from sandbox where id = $1) o where b.id = o.id and b.state = 'warm' returning o.was",
            [made.replaces],
          )
    if (made.replaces !== undefined && old === null) return null
    const row = await tx.one<SandboxRow>(
      `insert into sandbox (id, agent_id, template_hash, purpose, state, epoch, name, driver, harness_id, image, created_at, retiring)
       select $1, $2, $3, 'pool', 'provisioning', 0, $4, $5, $6, $7, clock_timestamp(), false
       from (select count(*) filter (where not retiring) held, count(*) filter (where state = 'provisioning') starting
             from sandbox where purpose = 'pool' and state in ('provisioning', 'warm')) pool
       where held < $8 and starting < $9 returning *`,
      [
        made.id,
        made.agentId,
        made.templateHash,
        made.name,
        made.driver,
        made.harnessId,
        made.image,
        limits.poolSize,
        limits.maxProvisioning,
      ],
    )
    if (row === null && old?.was === false)
      await tx.query('update sandbox set retiring = false where id = $1', [made.replaces])
    return row
  })

/** @returns null when it is not provisioning any more: the caller removes it */
export const sandboxWarm = (sql: Sql, id: string, endpoint: string): Promise<SandboxRow | null> =>
  sql.one<SandboxRow>(
    "update sandbox set state = 'warm', endpoint = $2, ready_at = now() where id = $1 and state = 'provisioning' and purpose = 'pool' returning *",
    [id, endpoint],
  )

/** A cold start has booted: handed to the session that it was made for. @returns null when the session does not want it any more */
export const sandboxBooted = (sql: Sql, id: string, endpoint: string): Promise<SandboxRow | null> =>
  sql.one<SandboxRow>(
    `update sandbox b set state = 'claimed', endpoint = $2, ready_at = now(), claimed_at = now(), epoch = epoch + 1
     where id = $1 and state = 'provisioning' and purpose = 'session'
       and exists (select from session s where s.id = b.session_id and s.sandbox_id = b.id and s.status in ('creating', 'ready')) returning *`,
    [id, endpoint],
  )

export type SandboxEnd = { code: FailureCode; message: string; evidence: Evidence | null }

/**
 * It failed, or was lost: not for anyone any more. Its session, or the pool that it was made for, is told in the same transaction.
 * @returns null when it had ended before, or is at another epoch
 */
export const sandboxFailed = (sql: Sql, id: string, end: SandboxEnd, epoch?: number): Promise<SandboxRow | null> =>
  sql.one<SandboxRow>(
    `with failed as (
     update sandbox set state = 'failed', failure_code = $2, failure_message = left($3, 4000), evidence = coalesce($4::jsonb, evidence), ended_at = now(), epoch = epoch + 1
     where id = $1 and state in ('provisioning', 'warm', 'claimed') and ($5::int is null or epoch = $5) returning *),
     told as (
       insert into outbox (kind, subject, created_at, attempts, next_at)
       select 'signal_session', session_id, now(), 0, now() from failed where session_id is not null
       union all select 'poke_pool', agent_id, now(), 0, now() from failed where purpose = 'pool')
     select * from failed`,
    [id, end.code, end.message, end.evidence, epoch ?? null],
  )

/** Takes a warm sandbox out of the pool. A compare-and-set: one that was claimed a moment ago stays with its session. */
export const retireSandbox = (sql: Sql, id: string): Promise<SandboxRow | null> =>
  sql.one<SandboxRow>(
    "update sandbox set state = 'ending', epoch = epoch + 1 where id = $1 and state = 'warm' returning *",
    [id],
  )

/** Whatever state it is in, it is to go. */
export const endSandbox = (sql: Sql, id: string): Promise<SandboxRow | null> =>
  sql.one<SandboxRow>(
    "update sandbox set state = 'ending', epoch = epoch + 1 where id = $1 and state in ('provisioning', 'warm', 'claimed') returning *",
    [id],
  )

/** The thing itself is removed. */
export const sandboxGone = async (sql: Sql, id: string, evidence: Evidence | null = null): Promise<void> => {
  await sql.query(
    `update sandbox set state = 'gone', ended_at = coalesce(ended_at, now()), evidence = coalesce(evidence, $2::jsonb)
     where id = $1 and state in ('ending', 'failed')`,
    [id, evidence],
  )
}

/** Those that must be removed and are not yet. */
export const sandboxesToRemove = (sql: Sql): Promise<SandboxRow[]> =>
  sql.query<SandboxRow>("select * from sandbox where state in ('ending', 'failed') order by created_at")

/** Every sandbox that exists or should. */
export const liveSandboxes = (sql: Sql): Promise<SandboxRow[]> =>
  sql.query<SandboxRow>("select * from sandbox where state <> 'gone' order by created_at")

/** Those of these names that ever had a row: rows are kept. */
export const recordedSandboxes = async (sql: Sql, names: string[]): Promise<Set<string>> => {
  const rows = await sql.query<{ name: string }>('select name from sandbox where name = any($1::text[])', [
    pgArray(names),
  ])
  return new Set(rows.map(({ name }) => name))
}

export const sandboxByName = (sql: Sql, name: string): Promise<SandboxRow | null> =>
  sql.one<SandboxRow>('select * from sandbox where name = $1', [name])

/** Names and addresses of several, for a list of sessions. */
export const sandboxAddresses = async (
  sql: Sql,
  ids: string[],
): Promise<Map<string, Pick<SandboxRow, 'name' | 'endpoint' | 'harness_id'>>> => {
  const rows = await sql.query<SandboxRow>(
    'select id, name, endpoint, harness_id from sandbox where id = any($1::uuid[])',
    [pgArray(ids)],
  )
  return new Map(rows.map((row) => [row.id, row]))
}
