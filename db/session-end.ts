import { EVENT_CHANNEL } from '../domain/names.ts'
import type { EventType } from '../domain/events.ts'
import type { EndReason, FailureCode } from '../domain/session.ts'
import { isEnded } from '../domain/session.ts'
import type { SandboxRow } from './entities/sandbox.ts'
import type { SessionRow } from './entities/session.ts'
import { closePermissions } from './permission-close.ts'
import { jsonItem, pgArray } from './sql.ts'
import type { Sql } from './sql.ts'
import { RETURNING_NEWS, TELL_WEBHOOKS } from './webhook-events.ts'

export type Ending =
  | { status: 'dead'; endReason: Exclude<EndReason, `failed:${FailureCode}`> }
  | { status: 'failed'; code: FailureCode; reason: string }

export type Ended = {
  session: SessionRow
  /** False: it had ended before, and nothing was changed. */
  changed: boolean
  /** The sandbox that has to be removed now. */
  sandbox: SandboxRow | null
}

/** Numbers and writes events of a session whose row is locked by this transaction. @returns the number of the last one */
export const writeEvents = async (
  tx: Sql,
  session: { id: string; last_seq: number },
  events: { type: EventType; data: Record<string, unknown> }[],
): Promise<number> => {
  const lastSeq = session.last_seq + events.length
  await tx.query(
    `with logged as (
       insert into event (session_id, seq, type, data, created_at)
       select $1, $2::int + i, type, data::jsonb, clock_timestamp() from unnest($3::text[], $4::text[]) with ordinality n (type, data, i)
       ${RETURNING_NEWS}), ${TELL_WEBHOOKS},
     numbered as (update session set last_seq = $5 where id = $1)
     select pg_notify('${EVENT_CHANNEL}', $1::text)::text`,
    [
      session.id,
      session.last_seq,
      pgArray(events.map(({ type }) => type)),
      pgArray(events.map(({ data }) => jsonItem(data))),
      lastSeq,
    ],
  )
  return lastSeq
}

/** What decides about a session's turns and its log. */
export type LockedSession = Pick<
  SessionRow,
  | 'id'
  | 'agent_id'
  | 'status'
  | 'end_reason'
  | 'attempt'
  | 'bound_attempt'
  | 'sandbox_id'
  | 'last_seq'
  | 'max_turns'
  | 'max_cost_usd'
  | 'limit_reached'
  | 'usage'
  | 'checkpoint_seq'
  | 'checkpoint_failures'
  | 'restart_requested_at'
>

/** Without the blobs of the row: this runs with each append to the log. */
export const lockSession = (tx: Sql, id: string): Promise<LockedSession | null> =>
  tx.one<LockedSession>(
    `select id, agent_id, status, end_reason, attempt, bound_attempt, sandbox_id, last_seq, max_turns, max_cost_usd, limit_reached, usage,
       checkpoint_seq, checkpoint_failures, restart_requested_at
     from session where id = $1 for no key update`,
    [id],
  )

export const lockSessionRow = (tx: Sql, id: string): Promise<SessionRow | null> =>
  tx.one<SessionRow>('select * from session where id = $1 for no key update', [id])

/**
 * Ends a session in whatever live state it is: waiting turns are cancelled; a running one too, or interrupted when the session failed; its sandbox goes to
 * `ending`, the log is closed, the workflow and the pool are told. An ended session stays as it ended.
 * @param attempt when given, only if the session is still at this attempt
 * @returns null when there is no such session
 */
export const endSession = (sql: Sql, id: string, ending: Ending, attempt?: number): Promise<Ended | null> =>
  sql.tx(async (tx) => {
    const before = await lockSessionRow(tx, id)
    if (before === null) return null
    if (isEnded(before.status) || (attempt !== undefined && before.attempt !== attempt))
      return { session: before, changed: false, sandbox: null }
    const endReason: EndReason = ending.status === 'dead' ? ending.endReason : `failed:${ending.code}`
    const turns = await tx.query<{ id: string; seq: number; status: string }>(
      `update turn set status = case status when 'running' then $3 else 'cancelled' end, finished_at = now(),
         error = jsonb_build_object('code', 'session_ended', 'message', 'The session ended: ' || $2)
       where session_id = $1 and status in ('queued', 'running') returning id, seq, status`,
      [id, endReason, ending.status === 'failed' ? 'interrupted' : 'cancelled'],
    )
    const sandboxes = await tx.query<SandboxRow>(
      "update sandbox set state = 'ending', epoch = epoch + 1 where session_id = $1 and state in ('provisioning', 'claimed') returning *",
      [id],
    )
    await writeEvents(tx, before, [
      ...(await closePermissions(tx, id, 'session_ended')),
      ...turns
        .toSorted((a, b) => a.seq - b.seq)
        .map((turn) => ({
          type: 'turn.finished' as const,
          data: { turn_id: turn.id, status: turn.status, error: { code: 'session_ended', message: endReason } },
        })),
      {
        type: 'session.ended',
        data: {
          end_reason: endReason,
          ...(ending.status === 'failed' ? { code: ending.code, reason: ending.reason } : {}),
        },
      },
    ])
    const [code, reason] = ending.status === 'failed' ? [ending.code, ending.reason.slice(0, 4_000)] : [null, null]
    const session = await tx.one<SessionRow>(
      'update session set status = $2, end_reason = $3, failure_code = $4, failure_reason = $5, ended_at = now() where id = $1 returning *',
      [id, ending.status, endReason, code, reason],
    )
    await tx.query(
      `insert into outbox (kind, subject, created_at, attempts, next_at)
       values ('signal_session', $1, now(), 0, now()), ('poke_pool', $2, now(), 0, now())`,
      [id, before.agent_id],
    )
    return { session: session!, changed: true, sandbox: sandboxes.find((one) => one.id === before.sandbox_id) ?? null }
  })
