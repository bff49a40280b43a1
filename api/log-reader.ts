import { setImmediate } from 'node:timers/promises'
import { readEvents } from '../db/events.ts'
import type { Sql } from '../db/sql.ts'
import type { SessionEvent } from '../domain/events.ts'
import { streamBatchMax } from '../domain/limits.ts'

type Page = { events: SessionEvent[]; more: boolean }

/** Reads that have not begun, by session and place, of each database. */
const asked = new WeakMap<Sql, Map<string, Promise<Page>>>()

/**
 * The next page of a log for a stream. All streams of a session that have come to its end are woken by the same news and want the same page, so what is asked in the
 * same moment is read once, and shared: hundreds of readers cost Postgres one statement. A read begins after all who share it have asked, so it shows everything
 * that any of them was woken for.
 */
export const readLog = (sql: Sql, sessionId: string, after: number): Promise<Page> => {
  const reads = asked.get(sql) ?? new Map<string, Promise<Page>>()
  asked.set(sql, reads)
  const key = `${sessionId} ${after}`
  const known = reads.get(key)
  if (known !== undefined) return known
  const read = setImmediate().then(() => {
    reads.delete(key)
    return readEvents(sql, { sessionId, after, limit: streamBatchMax })
  })
  reads.set(key, read)
  return read
}
