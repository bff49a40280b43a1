import { EVENT_CHANNEL } from '../domain/names.ts'
import { isEnded } from '../domain/session.ts'
import type { NewEvent, SessionEvent } from '../domain/events.ts'
import type { PermissionRequest } from '../domain/permission.ts'
import { notePermission } from './permissions.ts'
import { lockSession, writeEvents } from './session-end.ts'
import type { LockedSession } from './session-end.ts'
import { jsonItem, pgArray } from './sql.ts'
import type { Sql } from './sql.ts'
import { writeTurnEnd } from './turn-end.ts'
import type { TurnEnd } from './turn-end.ts'
import { RETURNING_NEWS, TELL_WEBHOOKS } from './webhook-events.ts'

/** A question of the harness; `waitMs`: how long it waits for an answer. */
type Question = { turnId: string; request: PermissionRequest; waitMs: number }

/** `asks`: what is asked gets a row, and the event is made from it. */
type JournalEvent = NewEvent & { journalSeq: number; asks?: Question }

export type Append = {
  sessionId: string
  /** The sandbox whose journal the entries come from. */
  sandboxId: string
  entries: JournalEvent[]
  /** Ended in the same transaction as its event. */
  turnEnd?: TurnEnd
}

/**
 * Appends entries of a sandbox' journal to the log of its session. Numbers have no gap, because the session's row is locked while they are given; what is
 * there already (by sandbox and journal number) is left out, so that repeating an append changes nothing, and so is the end of a turn that is over. Nothing is taken when
 * the log is closed, or from a sandbox that the session has left.
 * @returns `ended`: this sandbox has nothing more to say to this session; `deliveries`: what was left in the outbox for webhooks
 */
export const appendEvents = (
  sql: Sql,
  append: Append,
): Promise<{ lastSeq: number; appended: number; deliveries: number; ended: boolean }> =>
  sql.tx(async (tx) => {
    const session = await lockSession(tx, append.sessionId)
    if (session === null || isEnded(session.status) || session.sandbox_id !== append.sandboxId)
      return { lastSeq: session?.last_seq ?? 0, appended: 0, deliveries: 0, ended: true }
    const told = await withQuestions(tx, append)
    const around = append.turnEnd === undefined ? null : await writeTurnEnd(tx, session, append.turnEnd)
    const entries = entriesToWrite({ ...append, entries: told }, around !== null)
    const written = await writeAround(tx, session, { append, entries, ...(around ?? { before: [], after: [] }) })
    return { ...written, appended: written.lastSeq - session.last_seq, ended: false }
  })

/** Questions under the names that clients know. */
const withQuestions = async (tx: Sql, { sessionId, sandboxId, entries }: Append): Promise<JournalEvent[]> => {
  const told: JournalEvent[] = []
  for (const entry of entries) {
    const { asks } = entry
    told.push(
      asks === undefined ? entry : { ...entry, data: await notePermission(tx, { sessionId, sandboxId, ...asks }) },
    )
  }
  return told
}

type Written = { append: Append; entries: JournalEvent[]; before: NewEvent[]; after: NewEvent[] }

/** The journal's entries, and around the end of a turn what follows from it. @returns `lastSeq`: the number of the last event */
const writeAround = async (tx: Sql, session: LockedSession, { append, entries, ...around }: Written) => {
  let lastSeq = session.last_seq
  let deliveries = 0
  const own = async (events: NewEvent[]): Promise<void> => {
    if (events.length > 0) lastSeq = await writeEvents(tx, { id: session.id, last_seq: lastSeq }, events)
  }
  const journal = async (part: JournalEvent[]): Promise<void> => {
    if (part.length === 0) return
    const written = await tx.one<{ last_seq: number; deliveries: number }>(APPEND, [
      session.id,
      lastSeq,
      append.sandboxId,
      pgArray(part.map(({ type }) => type)),
      pgArray(part.map(({ data }) => jsonItem(data))),
      pgArray(part.map(({ journalSeq }) => journalSeq)),
    ])
    lastSeq = written?.last_seq ?? lastSeq
    deliveries += written?.deliveries ?? 0
  }
  const end = around.before.length === 0 ? 0 : entries.findIndex(({ type }) => type === 'turn.finished')
  await journal(entries.slice(0, Math.max(0, end)))
  await own(around.before)
  await journal(entries.slice(Math.max(0, end)))
  await own(around.after)
  return { lastSeq, deliveries }
}

/** Each number of the journal once; the end of a turn only when it ends by this append, and once. */
const entriesToWrite = ({ entries, turnEnd }: Append, over: boolean): Append['entries'] => {
  const byNumber = [...new Map(entries.map((entry) => [entry.journalSeq, entry])).values()]
  const ofTurn = ({ data }: NewEvent): boolean => (data['turn_id'] ?? turnEnd?.turnId) === turnEnd?.turnId
  const end = over ? byNumber.find((entry) => entry.type === 'turn.finished' && ofTurn(entry)) : undefined
  return byNumber.filter((entry) => entry.type !== 'turn.finished' || entry === end)
}

const APPEND = `
  with fresh as (
    select type, data::jsonb as data, journal_seq, row_number() over (order by i)::int n
    from unnest($4::text[], $5::text[], $6::int[]) with ordinality e (type, data, journal_seq, i)
    where not exists (select from event where sandbox_id = $3 and event.journal_seq = e.journal_seq)),
  logged as (
    insert into event (session_id, seq, type, data, created_at, sandbox_id, journal_seq)
    select $1, $2::int + n, type, data, clock_timestamp(), $3, journal_seq from fresh
    ${RETURNING_NEWS}), ${TELL_WEBHOOKS},
  numbered as (
    update session set last_seq = $2 + (select count(*) from fresh), last_activity_at = now()
    where id = $1 and exists (select from fresh) returning id, last_seq)
  select last_seq, (select count(*)::int from delivering) as deliveries, pg_notify('${EVENT_CHANNEL}', id::text)::text as notified from numbered`

/** Number of the last entry of a sandbox' journal that is in the log; 0 for none. */
export const journalCursor = async (sql: Sql, sandboxId: string): Promise<number> =>
  (await sql.one<{ cursor: number }>(
    'select coalesce(max(journal_seq), 0)::int as cursor from event where sandbox_id = $1',
    [sandboxId],
  ))!.cursor

/** As stored, so compressed. A page has at least one entry, however large. */
const pageBytesMax = 256 * 1_024

/**
 * Entries after a number, in order: up to `limit` of them, fewer when they are large.
 * @returns `more`: the page ended before the log did
 */
export const readEvents = async (
  sql: Sql,
  page: { sessionId: string; after: number; limit: number },
): Promise<{ events: SessionEvent[]; more: boolean }> => {
  const rows = await sql.query<SessionEvent & { found: number }>(
    `select seq, type, data, created_at, found from (
       select *, count(*) over ()::int found, sum(size) over (order by seq) - size before from (
         select seq, type, data, created_at, pg_column_size(data) size from event
         where session_id = $1 and seq > $2 order by seq limit $3) read) sized
     where before < ${pageBytesMax} order by seq`,
    [page.sessionId, page.after, page.limit],
  )
  const found = rows[0]?.found ?? 0
  return { events: rows.map(({ found: _found, ...event }) => event), more: found === page.limit || rows.length < found }
}
