import { randomUUID } from 'node:crypto'
import type { NewEvent } from '../domain/events.ts'
import type { PermissionDecision, PermissionRequest } from '../domain/permission.ts'
import type { PermissionStatus } from '../domain/permission-status.ts'
import type { PermissionRow } from './entities/permission.ts'
import { lockSession, writeEvents } from './session-end.ts'
import { pgArray } from './sql.ts'
import type { Sql } from './sql.ts'

/** A question as the journal of a sandbox tells it. */
export type Asked = { sessionId: string; turnId: string; sandboxId: string; request: PermissionRequest; waitMs: number }

/**
 * Notes a question of a harness, in the transaction that tells it in the log.
 * @returns what the log says of it
 */
export const notePermission = async (tx: Sql, asked: Asked): Promise<NewEvent['data']> => {
  const { id, kind, title, tool } = asked.request
  const row = await tx.one<{ id: string; expires_at: Date }>(
    `insert into permission (id, session_id, turn_id, sandbox_id, request_id, kind, title, tool, status, asked_at, expires_at)
     values ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, 'open', now(), now() + make_interval(secs => $9::bigint / 1000.0))
     on conflict (sandbox_id, request_id) do update set request_id = excluded.request_id returning id, expires_at`,
    [randomUUID(), asked.sessionId, asked.turnId, asked.sandboxId, id, kind, title, tool, asked.waitMs],
  )
  const permission = { id: row!.id, kind, title, tool }
  return { turn_id: asked.turnId, permission, expires_at: row!.expires_at.toISOString() }
}

type Expired = { id: string; turn_id: string }

const expire = async (tx: Sql, sessionId: string): Promise<NewEvent[]> => {
  const expired = await tx.query<Expired>(
    `update permission set status = 'expired', decision = 'deny', decided_by = 'deadline', decided_at = now()
     where session_id = $1 and status = 'open' and expires_at <= now() returning id, turn_id`,
    [sessionId],
  )
  return expired.map(({ id, turn_id }) => ({
    type: 'permission.expired',
    data: { turn_id, permission_id: id, reason: 'deadline' },
  }))
}

/** Denies what nobody has answered in time. @returns how many questions that were */
export const expirePermissions = (sql: Sql, sessionId: string): Promise<number> =>
  sql.tx(async (tx) => {
    const session = await lockSession(tx, sessionId)
    if (session === null) return 0
    const events = await expire(tx, sessionId)
    if (events.length > 0) await writeEvents(tx, session, events)
    return events.length
  })

const STATUS_OF: Record<PermissionDecision, PermissionStatus> = {
  allow: 'allowed',
  allow_always: 'allowed',
  deny: 'denied',
}

const findPermission = (tx: Sql, sessionId: string, id: string): Promise<PermissionRow | null> =>
  tx.one<PermissionRow>('select * from permission where id = $1 and session_id = $2', [id, sessionId])

/**
 * Writes an answer, once: the first one counts. One that comes too late finds the question expired.
 * @returns null when nobody has asked that; `decided`: by this call; else as it was before, which may be the same answer
 */
export const decidePermission = (
  sql: Sql,
  sessionId: string,
  answer: { id: string; decision: PermissionDecision },
): Promise<{ permission: PermissionRow; decided: boolean } | null> =>
  sql.tx(async (tx) => {
    const session = await lockSession(tx, sessionId)
    if (session === null) return null
    const { id, decision } = answer
    const late = await expire(tx, sessionId)
    const permission = await tx.one<PermissionRow>(
      `update permission set status = $3, decision = $4, decided_by = 'user', decided_at = now()
       where id = $1 and session_id = $2 and status = 'open' returning *`,
      [id, sessionId, STATUS_OF[decision], decision],
    )
    const replied = (row: PermissionRow): NewEvent => ({
      type: 'permission.replied',
      data: { turn_id: row.turn_id, permission_id: id, decision, decided_by: 'user' },
    })
    const events = [...late, ...(permission === null ? [] : [replied(permission)])]
    if (events.length > 0) await writeEvents(tx, session, events)
    if (permission !== null) return { permission, decided: true }
    const before = await findPermission(tx, sessionId, id)
    return before === null ? null : { permission: before, decided: false }
  })

/** The newest ones, oldest first. */
export const listPermissions = (
  sql: Sql,
  sessionId: string,
  page: { status: PermissionStatus | null; limit: number },
): Promise<PermissionRow[]> =>
  sql.query<PermissionRow>(
    `select * from (
       select * from permission where session_id = $1 and ($2::text is null or status = $2) order by asked_at desc, id limit $3) newest
     order by asked_at, id`,
    [sessionId, page.status, page.limit],
  )

/** Those of the sessions whose harness waits for a person. */
export const waitingForInput = async (sql: Sql, sessionIds: string[]): Promise<Set<string>> => {
  if (sessionIds.length === 0) return new Set()
  const rows = await sql.query<{ session_id: string }>(
    "select distinct session_id from permission where session_id = any($1::uuid[]) and status = 'open'",
    [pgArray(sessionIds)],
  )
  return new Set(rows.map(({ session_id }) => session_id))
}

/** What is still to be done for a running turn by whoever follows it. */
export type TurnWishes = {
  /** Somebody wants it to stop. */
  interrupt: boolean
  /** A question has waited for too long. */
  due: boolean
  /** Answers that the sandbox has not confirmed. */
  answers: { id: string; request_id: string; decision: PermissionDecision }[]
}

/** @returns null when the turn does not run */
export const turnWishes = (sql: Sql, turnId: string): Promise<TurnWishes | null> =>
  sql.one<TurnWishes>(
    `select t.interrupt_requested_at is not null as interrupt,
       exists (select from permission p where p.turn_id = t.id and p.status = 'open' and p.expires_at <= now()) due,
       coalesce((
         select jsonb_agg(jsonb_build_object('id', p.id, 'request_id', p.request_id, 'decision', p.decision) order by p.decided_at)
         from permission p where p.turn_id = t.id and p.decision is not null and p.delivered_at is null), '[]') answers
     from turn t where t.id = $1 and t.status = 'running'`,
    [turnId],
  )

/** The sandbox has the answer, or takes none any more. */
export const permissionDelivered = async (sql: Sql, id: string): Promise<void> => {
  await sql.query('update permission set delivered_at = now() where id = $1 and delivered_at is null', [id])
}
