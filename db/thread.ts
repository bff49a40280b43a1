import { DELETED } from '../domain/turn.ts'
import type { TurnRow } from './entities/turn.ts'
import type { Sql } from './sql.ts'

/** As stored, so compressed; what an image weighs. Reading costs a process some times as much memory. */
const threadBytesMax = 16 * 1_024 * 1_024
/** What Postgres looks through for texts among files. */
const searchedBytesMax = 4 * threadBytesMax
/** Without files; as JSON. */
const textBytesMax = 4 * 1_024 * 1_024

/** A message that was taken back before it began is no part of the conversation. */
const isSaid = `(status <> 'cancelled' or error->>'code' is distinct from '${DELETED}')`

/** The newest turns that fit, by the sizes of what is stored, which Postgres knows without reading it. There is at least one, however large. */
const newest = (bytesMax: number): string => `
  newest as (
    select * from (
      select *, sum(size) over (order by seq desc) - size before from (
        select *, pg_column_size(parts) + coalesce(pg_column_size(reply), 0) size
        from turn where session_id = $1 and ${isSaid} order by seq desc limit $2) t) sized
    where before < ${bytesMax})`

/**
 * Turns of a session in order with all that was said and attached: the `limit` newest ones, and of these the newest that fit in 16 MiB as stored.
 * @returns at least the newest, however large
 */
export const listTurns = (sql: Sql, sessionId: string, limit = 500): Promise<TurnRow[]> =>
  sql.query<TurnRow>(
    `with ${newest(threadBytesMax)}
     select id, session_id, seq, status, idempotency_key, body_hash, parts, model, reply, error, usage, sandbox_id, created_at, started_at, finished_at
     from newest order by seq`,
    [sessionId, limit],
  )

/** Parts with the names of files, but not what is in them. */
const withoutFiles = (parts: string): string => `(
  select coalesce(jsonb_agg(case p->>'type' when 'file' then p - 'url' when 'tool' then p #- '{state,attachments}' else p end order by i), '[]')
  from jsonb_array_elements(case when jsonb_typeof(${parts}) = 'array' then ${parts} else '[]' end) with ordinality e (p, i))`

/** As `listTurns`, but without the contents of files: to be told, not to be shown. Of the newest 64 MiB those that then fit in 4 MiB of JSON. */
export const listTurnTexts = (sql: Sql, sessionId: string, limit = 500): Promise<TurnRow[]> =>
  sql.query<TurnRow>(
    `with ${newest(searchedBytesMax)},
     light as (
       select id, session_id, seq, status, idempotency_key, body_hash, ${withoutFiles('parts')} parts, model,
         case when reply is null then null else reply || jsonb_build_object('parts', ${withoutFiles("reply->'parts'")}) end reply,
         error, usage, sandbox_id, created_at, started_at, finished_at
       from newest)
     select id, session_id, seq, status, idempotency_key, body_hash, parts, model, reply, error, usage, sandbox_id, created_at, started_at, finished_at
     from (
       select *, sum(size) over (order by seq desc) - size before from (
         select *, pg_column_size(parts) + coalesce(pg_column_size(reply), 0) size from light) t) sized
     where before < ${textBytesMax} order by seq`,
    [sessionId, limit],
  )

/** The beginning of what the user said first, or null. */
export const firstText = async (sql: Sql, sessionId: string): Promise<string | null> =>
  (
    await sql.one<{ text: string | null }>(
      `select left(p->>'text', 200) "text"
       from (select parts from turn where session_id = $1 and ${isSaid} order by seq limit 1) first, jsonb_array_elements(parts) with ordinality e (p, i)
       where p->>'type' = 'text' order by i limit 1`,
      [sessionId],
    )
  )?.text ?? null
