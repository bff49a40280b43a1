import { AppError } from '../domain/errors.ts'
import { webhookSecretOverlapMs, webhookSecretsMax, webhooksMax } from '../domain/limits.ts'
import type { DisabledReason } from '../domain/webhook.ts'
import type { StoredSecret, WebhookRow } from './entities/webhook.ts'
import { pgArray } from './sql.ts'
import type { Sql } from './sql.ts'

export type NewWebhook = Pick<WebhookRow, 'id' | 'url' | 'events' | 'agent_id' | 'description' | 'enabled'> & {
  sealedSecret: string
}
/** What is left out stays. */
export type WebhookPatch = Partial<Pick<WebhookRow, 'url' | 'events' | 'agent_id' | 'description' | 'enabled'>>

/** @throws AppError `conflict` when there are `webhooksMax`: about so many, those made at the same moment do not see each other */
export const insertWebhook = async (sql: Sql, webhook: NewWebhook): Promise<WebhookRow> => {
  const { id, url, events, agent_id, description, enabled, sealedSecret } = webhook
  const secrets: StoredSecret[] = [{ sealed: sealedSecret, until: null }]
  const row = await sql.one<WebhookRow>(
    `insert into webhook (id, url, events, agent_id, description, enabled, disabled_reason, disabled_at, secrets, created_at, updated_at)
     select $1, $2, $3::jsonb, $4::uuid, $5, $6::boolean, case when not $6 then 'request' end, case when not $6 then now() end, $7::jsonb, now(), now()
     where (select count(*) from webhook) < $8::int returning *`,
    [id, url, events, agent_id, description, enabled, secrets, webhooksMax],
  )
  if (row === null) throw new AppError('conflict', `There are ${webhooksMax} webhooks, which is the most; delete some`)
  return row
}

export const getWebhook = (sql: Sql, id: string): Promise<WebhookRow | null> =>
  sql.one<WebhookRow>('select * from webhook where id = $1', [id])

/** All of them, the oldest first: there are `webhooksMax` at most. */
export const listWebhooks = (sql: Sql, agentId: string | null): Promise<WebhookRow[]> =>
  sql.query<WebhookRow>('select * from webhook where $1::uuid is null or agent_id = $1 order by created_at, id', [
    agentId,
  ])

/** Within a transaction, before a delivery of it is changed: whoever changes both waits here, and so nobody for ever. */
export const lockWebhook = (tx: Sql, id: string): Promise<WebhookRow | null> =>
  tx.one<WebhookRow>('select * from webhook where id = $1 for no key update', [id])

const wakeDeliveries = async (tx: Sql, ids: string[]): Promise<void> => {
  await tx.query(
    `insert into outbox (kind, subject, created_at, attempts, next_at) select 'deliver_webhook', id, now(), 0, now() from unnest($1::uuid[]) as id`,
    [pgArray(ids)],
  )
}

/** Sends nothing any more, and gives up what waits. Within a transaction that holds the webhook's row. */
export const disableWebhook = async (tx: Sql, id: string, reason: DisabledReason): Promise<void> => {
  await tx.query(
    `update webhook set enabled = false, disabled_reason = $2, disabled_at = now(), updated_at = now() where id = $1`,
    [id, reason],
  )
  const cancelled = await tx.query<{ id: string }>(
    `update webhook_delivery set status = 'cancelled', next_attempt_at = null, finished_at = now(), error = $2
     where webhook_id = $1 and status = 'pending' and session_id is not null returning id`,
    [id, `The webhook was disabled (${reason})`],
  )
  // Their workflows look, and end.
  await wakeDeliveries(
    tx,
    cancelled.map((row) => row.id),
  )
}

/** One that is enabled again begins anew. @returns null when there is none */
export const updateWebhook = (sql: Sql, id: string, patch: WebhookPatch): Promise<WebhookRow | null> =>
  sql.tx(async (tx) => {
    const before = await lockWebhook(tx, id)
    if (before === null) return null
    const { enabled, url, events, agent_id, description } = { ...before, ...patch }
    if (before.enabled && !enabled) await disableWebhook(tx, id, 'request')
    return tx.one<WebhookRow>(
      `update webhook set url = $2, events = $3::jsonb, agent_id = $4, description = $5, enabled = $6::boolean, updated_at = now(),
         disabled_reason = case when not $6 then disabled_reason end, disabled_at = case when not $6 then disabled_at end,
         failing_since = case when $6 and not enabled then null else failing_since end
       where id = $1 returning *`,
      [id, url, events, agent_id, description, enabled],
    )
  })

/** Deliveries that one statement removes: however many there are, none takes longer than it may. */
const removedAtOnce = 5_000

const removeDeliveries = async (sql: Sql, webhookId: string): Promise<void> => {
  const some = `select id from webhook_delivery where webhook_id = $1 limit ${removedAtOnce}`
  for (let removed = removedAtOnce; removed === removedAtOnce;)
    removed = (await sql.query(`delete from webhook_delivery where id in (${some}) returning id`, [webhookId])).length
}

/**
 * Deletes a webhook; what waits for it is not delivered. What was delivered goes with it, what a crash leaves of that with its age.
 * @returns false when there was none
 */
export const deleteWebhook = async (sql: Sql, id: string): Promise<boolean> => {
  const deleted = await sql.tx(async (tx) => {
    if ((await tx.one('delete from webhook where id = $1 returning id', [id])) === null) return false
    const waiting = await tx.query<{ id: string }>(
      "delete from webhook_delivery where webhook_id = $1 and status = 'pending' returning id",
      [id],
    )
    await wakeDeliveries(
      tx,
      waiting.map((row) => row.id),
    )
    return true
  })
  if (deleted) await removeDeliveries(sql, id)
  return deleted
}

/** Those that sign at a moment. */
export const signingSecrets = (secrets: StoredSecret[], now: Date): StoredSecret[] =>
  secrets.filter(({ until }) => until === null || new Date(until) > now)

/**
 * Makes a new secret the one of a webhook; the one before signs beside it for `webhookSecretOverlapMs`.
 * @returns null when there is none
 * @throws AppError `rate_limited` when so many secrets sign that no more fit
 */
export const rotateSecret = (sql: Sql, id: string, rotation: { sealed: string; now: Date }) =>
  sql.tx(async (tx): Promise<WebhookRow | null> => {
    const before = await lockWebhook(tx, id)
    if (before === null) return null
    const signing = signingSecrets(before.secrets, rotation.now)
    if (signing.length >= webhookSecretsMax)
      throw new AppError('rate_limited', `${webhookSecretsMax} secrets of this webhook sign, which is the most`, {
        retryAfterSeconds: 3_600,
      })
    const until = new Date(rotation.now.getTime() + webhookSecretOverlapMs).toISOString()
    const secrets: StoredSecret[] = [
      { sealed: rotation.sealed, until: null },
      ...signing.map((secret) => ({ ...secret, until: secret.until ?? until })),
    ]
    return tx.one<WebhookRow>('update webhook set secrets = $2::jsonb, updated_at = now() where id = $1 returning *', [
      id,
      secrets,
    ])
  })
