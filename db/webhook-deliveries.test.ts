import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { webhookAttemptsKept, webhooksMax } from '../domain/limits.ts'
import type { Outcome } from '../domain/webhook.ts'
import { buildWebhook } from '../test/builders.ts'
import { buildConversation } from '../test/conversation.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import type { DeliveryRow, WebhookRow } from './entities/webhook.ts'
import { endSession } from './session-end.ts'
import type { Sql } from './sql.ts'
import {
  cancelDelivery,
  dueDelivery,
  forgetDeliveries,
  getDelivery,
  listDeliveries,
  recordAttempt,
  redeliver,
} from './webhook-deliveries.ts'
import { deleteWebhook, getWebhook, rotateSecret, updateWebhook } from './webhooks.ts'

let database: TestDatabase
let sql: Sql
let webhook: WebhookRow
beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  await sql.query('delete from webhook')
  await sql.query('delete from webhook_delivery')
  webhook = await buildWebhook(sql, { events: ['session.ended'] })
})

/** A session has ended; what is to be delivered. */
const happen = async (): Promise<DeliveryRow> => {
  const talk = await buildConversation(sql)
  await endSession(sql, talk.id, { status: 'dead', endReason: 'deleted' })
  const [row] = await listDeliveries(sql, webhook.id, { sessionId: talk.id, limit: 9 })
  return row!
}
const now = async ({ id }: DeliveryRow) => (await getDelivery(sql, webhook.id, id))!
const failing = async () => (await getWebhook(sql, webhook.id))!.failing_since

const taken: Outcome = { result: 'success', statusCode: 204, error: null, response: null, retryAfterMs: null }
const refused: Outcome = { ...taken, result: 'status', statusCode: 500, error: 'The receiver answered 500' }
const note = ({ id }: DeliveryRow, outcome: Outcome, attemptCount = 0) => {
  const { result, statusCode: status_code, error, response } = outcome
  const attempt = { at: new Date().toISOString(), duration_ms: 5, result, status_code, error, response }
  return recordAttempt(sql, { id, webhookId: webhook.id, attemptCount, outcome, attempt }, 0.5)
}

test('a try is written down once, by whoever comes first', async () => {
  const delivery = await happen()
  const recorded = await Promise.all(Array.from({ length: 5 }, () => note(delivery, refused)))
  expect(recorded.filter((one) => one !== null)).toEqual([
    { next: { status: 'pending', waitMs: 5_000 }, disabled: null },
  ])
  expect(await now(delivery)).toMatchObject({ status: 'pending', tries: 1, attempt_count: 1, error: refused.error })
  expect((await now(delivery)).attempts).toHaveLength(1)
})

test('its next try is due after the wait', async () => {
  const delivery = await happen()
  expect(await dueDelivery(sql, delivery.id)).toMatchObject({ due_ms: 0, wanted: true, attempt_count: 0 })
  await note(delivery, refused)
  const due = await dueDelivery(sql, delivery.id)
  expect(due?.due_ms).toBeGreaterThan(0)
  expect(due?.due_ms).toBeLessThanOrEqual(5_000)
})

test('the newest tries are kept', async () => {
  const delivery = await happen()
  for (let i = 0; i < webhookAttemptsKept + 2; i++) await note(delivery, { ...refused, statusCode: 500 + i }, i)
  const { attempts, attempt_count } = await now(delivery)
  expect(attempt_count).toBe(webhookAttemptsKept + 2)
  expect(attempts.map(({ status_code }) => status_code)).toEqual(
    Array.from({ length: webhookAttemptsKept }, (_, i) => 502 + i),
  )
})

test('a webhook is failing from its first failure until its next success', async () => {
  const [one, other] = [await happen(), await happen()]
  expect(await failing()).toBeNull()
  await note(one, refused)
  const since = await failing()
  expect(since).not.toBeNull()
  await note(other, refused)
  expect(await failing()).toEqual(since)
  await note(one, taken, 1)
  expect(await failing()).toBeNull()
  await note(other, taken, 1)
  expect([(await now(one)).status, (await now(other)).status]).toEqual(['delivered', 'delivered'])
})

test('what is over is not tried, and nothing is written about it', async () => {
  const delivery = await happen()
  await note(delivery, taken)
  const before = await now(delivery)
  expect(await dueDelivery(sql, delivery.id)).toBeNull()
  expect(await note(delivery, refused, 1)).toBeNull()
  await cancelDelivery(sql, delivery.id)
  expect(await now(delivery)).toEqual(before)
})

test('one that is sent again has all its time again, and keeps what was tried', async () => {
  const delivery = await happen()
  await sql.query("update webhook_delivery set tried_from = now() - interval '2 days' where id = $1", [delivery.id])
  expect(await note(delivery, refused)).toMatchObject({ next: { status: 'failed' } })
  const again = await redeliver(sql, webhook.id, delivery.id)
  expect(again).toMatchObject({ status: 'pending', tries: 0, attempt_count: 1, error: null, finished_at: null })
  expect(await note(delivery, refused, 1)).toMatchObject({ next: { status: 'pending', waitMs: 5_000 } })
})

test('one that was written while its webhook was disabled is not wanted', async () => {
  const delivery = await happen()
  await updateWebhook(sql, webhook.id, { enabled: false })
  await sql.query("update webhook_delivery set status = 'pending', next_attempt_at = now() where id = $1", [
    delivery.id,
  ])
  expect(await dueDelivery(sql, delivery.id)).toMatchObject({ wanted: false })
  await cancelDelivery(sql, delivery.id)
  expect(await now(delivery)).toMatchObject({ status: 'cancelled', next_attempt_at: null })
})

test('tries, changes, deletions and events of the same webhook at the same moment wait for each other, and none for ever', async () => {
  const deliveries = await Promise.all(Array.from({ length: 6 }, happen))
  const gone: Outcome = { ...refused, statusCode: 410 }
  await Promise.all([
    ...deliveries.map((one, i) => note(one, i === 3 ? gone : i % 2 === 0 ? taken : refused)),
    ...deliveries.map((one) => redeliver(sql, webhook.id, one.id)),
    updateWebhook(sql, webhook.id, { enabled: false }),
    updateWebhook(sql, webhook.id, { enabled: true }),
    rotateSecret(sql, webhook.id, { sealed: 'whsec_AAAA', now: new Date() }),
    happen(),
    deleteWebhook(sql, webhook.id),
  ])
  expect(await getWebhook(sql, webhook.id)).toBeNull()
})

test('a deleted webhook takes its deliveries along, and tells who waits to make one', async () => {
  const [done, waiting] = [await happen(), await happen()]
  await note(done, taken)
  await sql.query('delete from outbox')
  expect(await deleteWebhook(sql, webhook.id)).toBe(true)
  expect(await sql.query('select from webhook_delivery')).toEqual([])
  const told = await sql.query<{ subject: string }>("select subject from outbox where kind = 'deliver_webhook'")
  expect(told.map(({ subject }) => subject)).toEqual([waiting.id])
  expect(await deleteWebhook(sql, webhook.id)).toBe(false)
})

test('one that was written while its webhook was deleted is forgotten, since nobody can deliver it; what waits otherwise is not', async () => {
  const waiting = await happen()
  const stray = await happen()
  await sql.query("update webhook_delivery set next_attempt_at = now() - interval '1 hour'")
  await sql.query('update webhook_delivery set webhook_id = gen_random_uuid() where id = $1', [stray.id])
  expect(await forgetDeliveries(sql, 0)).toBe(1)
  expect(await sql.query('select id from webhook_delivery')).toEqual([{ id: waiting.id }])
})

test('there is a most of webhooks', async () => {
  for (let i = 1; i < webhooksMax; i++) await buildWebhook(sql)
  await expect(buildWebhook(sql)).rejects.toMatchObject({ code: 'conflict' })
})
