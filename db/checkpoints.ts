import type { CheckpointStore, CheckpointStoreKind } from '../domain/checkpoint.ts'
import { checkpointsKeptMax } from '../domain/limits.ts'
import type { NewEvent } from '../domain/events.ts'
import { isEnded } from '../domain/session.ts'
import type { CheckpointManifest } from '../domain/supervisor-protocol.ts'
import type { CheckpointRow } from './entities/checkpoint.ts'
import type { SandboxRow } from './entities/sandbox.ts'
import type { SessionRow } from './entities/session.ts'
import { lockSession, writeEvents } from './session-end.ts'
import type { LockedSession } from './session-end.ts'
import { pgArray } from './sql.ts'
import type { Sql } from './sql.ts'

export type Begun = { checkpoint: CheckpointRow; sandbox: SandboxRow }

/** The last turn that began in the sandbox of a session, as `loadSessionPlan` reads it too. */
const lastTurn = (tx: Sql, session: LockedSession) =>
  tx.one<{ id: string; seq: number; status: string }>(
    `select id, seq, status from turn where session_id = $1 and sandbox_id = $2 and started_at is not null order by seq desc limit 1`,
    [session.id, session.sandbox_id],
  )

/**
 * Writes the row of a checkpoint that is to be taken behind the last turn of a session, when that is over and has none. One that was begun before and not ended, by a
 * worker that died, is given up.
 * @returns null when none is due
 */
export const beginCheckpoint = (
  sql: Sql,
  sessionId: string,
  { id, store }: { id: string; store: Pick<CheckpointStore, 'kind' | 'place'> },
): Promise<Begun | null> =>
  sql.tx(async (tx) => {
    const session = await lockSession(tx, sessionId)
    if (session === null || session.status !== 'ready' || session.bound_attempt !== session.attempt) return null
    const sandbox = await tx.one<SandboxRow>("select * from sandbox where id = $1 and state = 'claimed'", [
      session.sandbox_id,
    ])
    const turn = sandbox === null ? null : await lastTurn(tx, session)
    if (sandbox === null || turn === null || turn.status === 'running' || turn.seq <= session.checkpoint_seq)
      return null
    await tx.query("update checkpoint set state = 'deleted' where session_id = $1 and state = 'storing'", [sessionId])
    const checkpoint = await tx.one<CheckpointRow>(
      `insert into checkpoint (id, session_id, turn_id, turn_seq, sandbox_id, attempt, harness_id, state, store, place, pinned, created_at)
       values ($1, $2, $3, $4, $5, $6, $7, 'storing', $8, $9, false, clock_timestamp()) returning *`,
      [id, sessionId, turn.id, turn.seq, sandbox.id, session.attempt, sandbox.harness_id, store.kind, store.place],
    )
    return { checkpoint: checkpoint!, sandbox }
  })

/** A fork has still to begin with it, or would begin with it again. */
const FORK_NEEDS = `exists (
    select from session f where f.forked_from->>'checkpoint_id' = c.id::text and f.status in ('creating', 'ready')
      and not exists (select from checkpoint o where o.session_id = f.id and o.state = 'stored'))`

/** Checkpoints that nobody needs: not among the newest of their session, not pinned, not needed by a fork. `$1`: how many are kept. */
const NEEDLESS = `
  c.state = 'stored' and not c.pinned and not ${FORK_NEEDS}
  and (select count(*) from checkpoint n where n.session_id = c.session_id and n.state = 'stored' and (n.turn_seq, n.created_at) > (c.turn_seq, c.created_at)) >= $1::int`

/** `$2`: how long checkpoints outlive their session, `$3`: how long one may take to be stored. */
const EXPIRED = `(
  (c.state = 'storing' and c.created_at < now() - make_interval(secs => $3::bigint / 1000.0))
  or (c.state = 'stored' and s.ended_at < now() - make_interval(secs => $2::bigint / 1000.0) and not ${FORK_NEEDS})
  or (${NEEDLESS}))`

export type Archived = { manifest: CheckpointManifest; bytes: number; sha256: string }

const storedEvents = ({ id, turn_id }: CheckpointRow, { manifest, bytes }: Archived): NewEvent[] => {
  const { files, omitted, omitted_more, has_conversation } = manifest
  const ids = { checkpoint_id: id, turn_id }
  const left = omitted.length + omitted_more
  const stored: NewEvent = { type: 'checkpoint.stored', data: { ...ids, bytes, files, omitted: left } }
  if (left === 0 && has_conversation) return [stored]
  return [stored, { type: 'checkpoint.incomplete', data: { ...ids, omitted, omitted_more, has_conversation } }]
}

/**
 * The archive is there. A compare-and-set; the log says so unless it is closed, and older checkpoints that nobody needs any more are to go.
 * @returns null when somebody has given this one up: its archive is to be removed
 */
export const checkpointStored = (sql: Sql, row: CheckpointRow, archived: Archived): Promise<CheckpointRow | null> =>
  sql.tx(async (tx) => {
    const session = await lockSession(tx, row.session_id)
    const stored = await tx.one<CheckpointRow>(
      `update checkpoint set state = 'stored', manifest = $2::jsonb, bytes = $3, sha256 = $4, stored_at = now()
       where id = $1 and state = 'storing' returning *`,
      [row.id, archived.manifest, archived.bytes, archived.sha256],
    )
    if (session === null || stored === null) return null
    await tx.query(
      `update session set checkpoint_seq = greatest(checkpoint_seq, $2::int), checkpoint_failures = 0, checkpoint_retry_at = null where id = $1`,
      [session.id, row.turn_seq],
    )
    if (!isEnded(session.status)) await writeEvents(tx, session, storedEvents(row, archived))
    await tx.query(`update checkpoint c set state = 'deleted' where session_id = $2 and ${NEEDLESS}`, [
      checkpointsKeptMax,
      session.id,
    ])
    return stored
  })

/** Why there is no checkpoint. `again`: after how long it is tried again, by the number of failures in a row; null: never behind this turn. */
export type CheckpointFailure = { code: string; message: string; again: ((failures: number) => number) | null }

/** It could not be taken or stored: told once in a row. @returns whether it was told */
export const checkpointFailed = (sql: Sql, row: CheckpointRow, failure: CheckpointFailure): Promise<boolean> =>
  sql.tx(async (tx) => {
    const session = await lockSession(tx, row.session_id)
    const failed = await tx.one(
      "update checkpoint set state = 'deleted' where id = $1 and state = 'storing' returning id",
      [row.id],
    )
    if (session === null || failed === null || isEnded(session.status) || session.attempt !== row.attempt) return false
    const failures = session.checkpoint_failures + 1
    const waitMs = failure.again?.(failures) ?? null
    await tx.query(
      `update session set checkpoint_failures = $2, checkpoint_retry_at = now() + make_interval(secs => $3::bigint / 1000.0),
         checkpoint_seq = case when $3::bigint is null then greatest(checkpoint_seq, $4::int) else checkpoint_seq end where id = $1`,
      [session.id, waitMs === null ? 0 : failures, waitMs === null ? null : Math.round(waitMs), row.turn_seq],
    )
    if (failures > 1) return false
    const { code, message } = failure
    const data = { turn_id: row.turn_id, code, message: message.slice(0, 1_000) }
    await writeEvents(tx, session, [{ type: 'checkpoint.failed', data }])
    return true
  })

/** Nothing was wrong, and nothing was taken. @param again when it is looked at again; null: never behind this turn */
export const checkpointSkipped = (sql: Sql, row: CheckpointRow, again: number | null): Promise<void> =>
  sql.tx(async (tx) => {
    await lockSession(tx, row.session_id)
    await tx.query("update checkpoint set state = 'deleted' where id = $1 and state = 'storing'", [row.id])
    await tx.query(
      `update session set checkpoint_retry_at = now() + make_interval(secs => $3::bigint / 1000.0),
         checkpoint_seq = case when $3::bigint is null then greatest(checkpoint_seq, $4::int) else checkpoint_seq end
       where id = $1 and attempt = $2`,
      [row.session_id, row.attempt, again, row.turn_seq],
    )
  })

/** What a session can be put back to, the newest first; one that has none of its own yet begins with that of which it was forked. */
export const restorableCheckpoints = async (sql: Sql, session: SessionRow): Promise<CheckpointRow[]> => {
  const own = await sql.query<CheckpointRow>(
    "select * from checkpoint where session_id = $1 and state = 'stored' order by turn_seq desc, created_at desc limit $2",
    [session.id, checkpointsKeptMax],
  )
  if (own.length > 0 || session.forked_from === null) return own
  return sql.query<CheckpointRow>("select * from checkpoint where id = $1 and state = 'stored'", [
    session.forked_from.checkpoint_id,
  ])
}

/** It could not be restored: what comes after it lacks its files, so it is kept for a fork. */
export const pinCheckpoint = async (sql: Sql, id: string): Promise<void> => {
  await sql.query('update checkpoint set pinned = true where id = $1', [id])
}

/** Of a session, the newest first. */
export const listCheckpoints = (sql: Sql, sessionId: string): Promise<CheckpointRow[]> =>
  sql.query<CheckpointRow>(
    "select * from checkpoint where session_id = $1 and state = 'stored' order by turn_seq desc, created_at desc limit 100",
    [sessionId],
  )

/**
 * Gives up what nobody needs any more: checkpoints of sessions that ended that long ago, those that newer ones have replaced, and those that were never finished.
 * @returns how many
 */
export const expireCheckpoints = async (
  sql: Sql,
  { retentionMs, abandonedMs }: { retentionMs: number; abandonedMs: number },
): Promise<number> => {
  const limits = [checkpointsKeptMax, retentionMs, abandonedMs]
  const sessions = await sql.query<{ id: string }>(
    `select distinct s.id from checkpoint c join session s on s.id = c.session_id where ${EXPIRED}`,
    limits,
  )
  let given = 0
  for (const { id } of sessions)
    given += await sql.tx(async (tx) => {
      // Whoever forks it holds this lock too.
      await lockSession(tx, id)
      const expired = await tx.query(
        `update checkpoint c set state = 'deleted' from session s where s.id = c.session_id and s.id = $4 and ${EXPIRED} returning c.id`,
        [...limits, id],
      )
      return expired.length
    })
  return given
}

/** Those whose archives are to be removed from these stores, of one session or of all. */
export const deletedCheckpoints = (
  sql: Sql,
  sessionId: string | null,
  stores: Pick<CheckpointStore, 'kind' | 'place'>[],
): Promise<CheckpointRow[]> =>
  sql.query<CheckpointRow>(
    `select * from checkpoint where state = 'deleted' and (store, place) in (select * from unnest($2::text[], $3::text[]))
       and ($1::uuid is null or session_id = $1) order by created_at limit 500`,
    [sessionId, pgArray(stores.map(({ kind }) => kind)), pgArray(stores.map(({ place }) => place))],
  )

/** Its archive is gone. */
export const forgetCheckpoint = async (sql: Sql, id: string): Promise<void> => {
  await sql.query("delete from checkpoint where id = $1 and state = 'deleted'", [id])
}

/** Its archive was not found, or is not whole. @returns whether that was news */
export const checkpointLost = async (sql: Sql, id: string): Promise<boolean> =>
  (await sql.one("update checkpoint set state = 'deleted' where id = $1 and state = 'stored' returning id", [id])) !==
  null

/** What stores are compared with: of one of them, the ids that begin so. */
export const checkpointsIn = (
  sql: Sql,
  store: CheckpointStoreKind,
  prefix: string,
): Promise<Pick<CheckpointRow, 'id' | 'state' | 'place' | 'bytes' | 'stored_at'>[]> =>
  sql.query("select id, state, place, bytes, stored_at from checkpoint where store = $1 and id::text like $2 || '%'", [
    store,
    prefix,
  ])
