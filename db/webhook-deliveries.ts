import { randomUUID } from 'node:crypto'
import { webhookAttemptsKept, webhookSweepMax } from '../domain/limits.ts'
import { afterAttempt, TEST_EVENT } from '../domain/webhook.ts'
import type { DeliveryStatus, DisabledReason, NextStep, Outcome, WebhookEvent } from '../domain/webhook.ts'
import type { DeliveryAttempt, DeliveryRow, WebhookRow } from './entities/webhook.ts'
import { addOutbox } from './outbox.ts'
import type { PageCursor, Sql } from './sql.ts'
import { NEW_DELIVERY, NEW_DELIVERY_STATE } from './webhook-events.ts'
import { disableWebhook, lockWebhook } from './webhooks.ts'

export type DeliveryPage = {
  status?: DeliveryStatus
  type?: WebhookEvent | typeof TEST_EVENT
  sessionId?: string
  after?: PageCursor
  limit: number
}

/** Newest first. */
export const listDeliveries = (sql: Sql, webhookId: string, page: DeliveryPage): Promise<DeliveryRow[]> => {
  const params: unknown[] = [webhookId, page.limit]
  const hole = (value: unknown): string => `$${params.push(value)}`
  const conditions = ['webhook_id = $1']
  if (page.status !== undefined) conditions.push(`status = ${hole(page.status)}`)
  if (page.type !== undefined) conditions.push(`type = ${hole(page.type)}`)
  if (page.sessionId !== undefined) conditions.push(`session_id = ${hole(page.sessionId)}`)
  if (page.after !== undefined)
    conditions.push(`(created_at, id) < (${hole(page.after.createdAt)}::timestamptz, ${hole(page.after.id)}::uuid)`)
  return sql.query<DeliveryRow>(
    `select * from webhook_delivery where ${conditions.join(' and ')} order by created_at desc, id desc limit $2`,
    params,
  )
}

export const getDelivery = (sql: Sql, webhookId: string, id: string): Promise<DeliveryRow | null> =>
  sql.one<DeliveryRow>('select * from webhook_delivery where id = $1 and webhook_id = $2', [id, webhookId])

/** Writes a delivery that tells of nothing, and its workflow's start. */
export const insertTestDelivery = (sql: Sql, webhookId: string): Promise<DeliveryRow> =>
  sql.tx(async (tx) => {
    const id = randomUUID()
    const row = await tx.one<DeliveryRow>(
      `insert into webhook_delivery (${NEW_DELIVERY})
       values ($1, $2::uuid, null, null, $3, jsonb_build_object('webhook_id', $2), now(), ${NEW_DELIVERY_STATE}) returning *`,
      [id, webhookId, TEST_EVENT],
    )
    await addOutbox(tx, 'deliver_webhook', id)
    return row!
  })

/** Has a delivery tried again, from now on for as long as a new one; one that waits for its next try does not wait any longer. @returns null when there is none */
export const redeliver = (sql: Sql, webhookId: string, id: string): Promise<DeliveryRow | null> =>
  sql.tx(async (tx) => {
    const row = await tx.one<DeliveryRow>(
      `update webhook_delivery set status = 'pending', tried_from = now(), tries = 0, next_attempt_at = now(), error = null, finished_at = null
       where id = $1 and webhook_id = $2 returning *`,
      [id, webhookId],
    )
    if (row !== null) await addOutbox(tx, 'deliver_webhook', id)
    return row
  })

/** What a delivery's workflow is started with. @returns null when nothing is to be done about it */
export const deliveryToStart = (sql: Sql, id: string): Promise<{ type: string; url: string } | null> =>
  sql.one(
    `select d.type, w.url from webhook_delivery d join webhook w on w.id = d.webhook_id where d.id = $1 and d.status = 'pending'`,
    [id],
  )

/** A delivery that waits, with all that a try needs; `due_ms`: from now. */
export type DueDelivery = Pick<DeliveryRow, 'id' | 'webhook_id' | 'type' | 'data' | 'event_at' | 'attempt_count'> &
  Pick<WebhookRow, 'url' | 'secrets'> & {
    due_ms: number
    /** False: its webhook was disabled. */
    wanted: boolean
  }

/** @returns null when it does not wait any more, or its webhook is gone */
export const dueDelivery = (sql: Sql, id: string): Promise<DueDelivery | null> =>
  sql.one<DueDelivery>(
    `select d.id, d.webhook_id, d.type, d.data, d.event_at, d.attempt_count, w.url, w.secrets, w.enabled or d.type = '${TEST_EVENT}' as wanted,
       greatest(0, extract(epoch from d.next_attempt_at - now()) * 1000)::int as due_ms
     from webhook_delivery d join webhook w on w.id = d.webhook_id where d.id = $1 and d.status = 'pending'`,
    [id],
  )

/** Its webhook was disabled at the moment at which it was written. */
export const cancelDelivery = async (sql: Sql, id: string): Promise<void> => {
  await sql.query(
    `update webhook_delivery set status = 'cancelled', next_attempt_at = null, finished_at = now(), error = 'The webhook was disabled'
     where id = $1 and status = 'pending'`,
    [id],
  )
}

type Waiting = Pick<DeliveryRow, 'type' | 'tries'> & { elapsed_ms: number; failing_ms: number | null }

/** What a try has come to. `disabled`: the webhook, by this try. */
export type Recorded = { next: NextStep; disabled: DisabledReason | null }

const noteHealth = async (tx: Sql, webhook: WebhookRow, { next, type }: { next: NextStep; type: string }) => {
  if (type === TEST_EVENT) return
  const ok = next.status === 'delivered'
  if (ok === (webhook.failing_since === null)) return
  await tx.query('update webhook set failing_since = case when not $2::boolean then now() end where id = $1', [
    webhook.id,
    ok,
  ])
}

/**
 * Writes down a try, once, and what follows from it. The webhook's row is held first: see `lockWebhook`.
 * @param tried `attemptCount`: as it was before the try; another count means that somebody else has written one meanwhile
 * @returns null when it does not wait any more, or was tried by somebody else
 */
export const recordAttempt = (
  sql: Sql,
  tried: { id: string; webhookId: string; attemptCount: number; outcome: Outcome; attempt: DeliveryAttempt },
  random: number,
): Promise<Recorded | null> =>
  sql.tx(async (tx) => {
    const { id, webhookId, attemptCount, outcome, attempt } = tried
    const webhook = await lockWebhook(tx, webhookId)
    const waiting = await tx.one<Waiting>(
      `select d.type, d.tries, (extract(epoch from now() - d.tried_from) * 1000)::bigint::float8 elapsed_ms,
         (extract(epoch from now() - w.failing_since) * 1000)::bigint::float8 failing_ms
       from webhook_delivery d join webhook w on w.id = d.webhook_id
       where d.id = $1 and d.status = 'pending' and d.attempt_count = $2 for no key update of d`,
      [id, attemptCount],
    )
    if (webhook === null || waiting === null) return null
    const { type, tries, elapsed_ms: elapsedMs, failing_ms: failingMs } = waiting
    const next = afterAttempt(outcome, { type, tries, elapsedMs, failingMs }, random)
    await tx.query(
      `update webhook_delivery set status = $2, tries = tries + 1, attempt_count = attempt_count + 1, error = $3,
         next_attempt_at = now() + make_interval(secs => $4::bigint / 1000.0), finished_at = case when $5::boolean then now() end,
         attempts = case when jsonb_array_length(attempts) < ${webhookAttemptsKept} then attempts else attempts - 0 end || jsonb_build_array($6::jsonb)
       where id = $1`,
      [
        id,
        next.status,
        outcome.error,
        next.status === 'pending' ? next.waitMs : null,
        next.status !== 'pending',
        attempt,
      ],
    )
    await noteHealth(tx, webhook, { next, type })
    const disabled = next.status === 'failed' && webhook.enabled ? next.disable : null
    if (disabled !== null) await disableWebhook(tx, webhookId, disabled)
    return { next, disabled }
  })

/** Deliveries whose next try was due so long ago that their workflow is not there, or does nothing. */
export const overdueDeliveries = async (sql: Sql, overdueMs: number): Promise<string[]> => {
  const rows = await sql.query<{ id: string }>(
    `select id from webhook_delivery where status = 'pending' and next_attempt_at < now() - make_interval(secs => $1::int / 1000.0)
     order by next_attempt_at limit ${webhookSweepMax}`,
    [overdueMs],
  )
  return rows.map(({ id }) => id)
}

/** Pieces of `webhookSweepMax` in one look: what comes faster than this is removed by the next ones. */
const forgottenPiecesMax = 50

/**
 * Forgets what was delivered, or given up, so long ago, and what waits for a webhook that was deleted while it was written, which nobody can deliver.
 * @returns how many
 */
export const forgetDeliveries = async (sql: Sql, retentionMs: number): Promise<number> => {
  const stray = await sql.query(
    `delete from webhook_delivery where id in (
       select id from webhook_delivery d where status = 'pending' and next_attempt_at < now() - interval '1 minute'
         and not exists (select from webhook w where w.id = d.webhook_id) limit ${webhookSweepMax}) returning id`,
  )
  let forgotten = stray.length
  for (let pieces = 0; pieces < forgottenPiecesMax; pieces++) {
    const rows = await sql.query(
      `delete from webhook_delivery where id in (
         select id from webhook_delivery where status <> 'pending' and finished_at < now() - make_interval(secs => $1::bigint / 1000.0)
         order by finished_at limit ${webhookSweepMax}) returning id`,
      [retentionMs],
    )
    forgotten += rows.length
    if (rows.length < webhookSweepMax) break
  }
  return forgotten
}

export const pendingDeliveries = async (sql: Sql): Promise<number> =>
  (await sql.one<{ pending: number }>("select count(*)::int pending from webhook_delivery where status = 'pending'"))!
    .pending
