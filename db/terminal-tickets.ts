import { createHash } from 'node:crypto'
import type { Sql } from './sql.ts'

/** Rows of tickets that nobody has used are removed by whoever makes others, so many at once. */
const sweptMax = 100

const hashOf = (ticket: string): string => createHash('sha256').update(ticket).digest('base64url')

/** @param ticket random, 256 bits @returns until when it is good */
export const addTicket = async (
  sql: Sql,
  { ticket, sessionId, caller, ttlMs }: { ticket: string; sessionId: string; caller: string; ttlMs: number },
): Promise<Date> => {
  const row = await sql.one<{ expires_at: Date }>(
    `with stale as (
       delete from terminal_ticket where hash in (
         select hash from terminal_ticket where expires_at < now() order by expires_at limit ${sweptMax} for update skip locked))
     insert into terminal_ticket (hash, session_id, caller, created_at, expires_at)
     values ($1, $2, $3, now(), now() + make_interval(secs => $4 / 1000.0)) returning expires_at`,
    [hashOf(ticket), sessionId, caller, ttlMs],
  )
  return row!.expires_at
}

/**
 * Takes a ticket away from everybody: of any number that show it, on any replica, one gets in. Takes the same way for tickets and sessions that do not exist.
 * @returns whether it was good for this session and this caller
 */
export const useTicket = async (
  sql: Sql,
  { ticket, sessionId, caller }: { ticket: string; sessionId: string; caller: string },
): Promise<boolean> => {
  const used = await sql.one(
    `delete from terminal_ticket where hash = $1 and session_id = $2 and caller = $3 and expires_at > now() returning hash`,
    [hashOf(ticket), sessionId, caller],
  )
  return used !== null
}
