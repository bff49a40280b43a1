import { OUTBOX_KINDS } from './entities/pool.ts'
import type { OutboxKind, OutboxRow } from './entities/pool.ts'
import { pgArray } from './sql.ts'
import type { Sql } from './sql.ts'

/** A row that is being sent is not taken by another process for this long: a call to Temporal and some, since its sender may have died. */
const LEASE_SECONDS = 8

/**
 * Takes messages that are due, oldest first, and keeps other relays off them while they are sent. A column of milliseconds rounds up too: what was written a
 * moment ago counts as due, or the relay that its writer wakes would miss it. What a newer version has written is left to its relays.
 */
export const takeOutbox = (sql: Sql, limit: number): Promise<OutboxRow[]> =>
  sql.query<OutboxRow>(
    `with due as materialized (
       select id from outbox where next_at <= now() + interval '1 millisecond' and kind = any($2::text[]) order by next_at, id limit $1 for update skip locked)
     update outbox set next_at = now() + make_interval(secs => ${LEASE_SECONDS}), attempts = attempts + 1
     from due where outbox.id = due.id returning outbox.id::text, kind, subject, attempts, created_at`,
    [limit, pgArray([...OUTBOX_KINDS])],
  )

export const outboxSent = async (sql: Sql, ids: string[]): Promise<void> => {
  await sql.query('delete from outbox where id = any($1::bigint[])', [pgArray(ids)])
}

/** Comes up again after `delayMs`. */
export const outboxFailed = async (
  sql: Sql,
  ids: string[],
  failure: { error: string; delayMs: number },
): Promise<void> => {
  await sql.query(
    'update outbox set next_at = now() + make_interval(secs => $2::int / 1000.0), last_error = left($3, 500) where id = any($1::bigint[])',
    [pgArray(ids), failure.delayMs, failure.error],
  )
}

export const addOutbox = async (sql: Sql, kind: OutboxKind, subject: string): Promise<void> => {
  await sql.query(
    'insert into outbox (kind, subject, created_at, attempts, next_at) values ($1, $2, now(), 0, now())',
    [kind, subject],
  )
}

export const outboxDepth = async (sql: Sql): Promise<number> =>
  (await sql.one<{ depth: number }>('select count(*)::int depth from outbox'))!.depth
