import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { WEBHOOK_EVENTS } from '../domain/webhook.ts'
import type { WebhookEvent } from '../domain/webhook.ts'
import { buildConversation } from '../test/conversation.ts'
import type { Conversation } from '../test/conversation.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { buildWebhook } from '../test/builders.ts'
import type { DeliveryRow } from './entities/webhook.ts'
import { appendEvents } from './events.ts'
import { endSession } from './session-end.ts'
import { sessionReady } from './sessions.ts'
import type { Sql } from './sql.ts'
import { endTurn } from './turns.ts'
import { deleteWebhook, updateWebhook } from './webhooks.ts'

let database: TestDatabase
let sql: Sql
beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  await sql.query('delete from webhook')
  await sql.query('delete from webhook_delivery')
})

const deliveries = (webhookId?: string): Promise<DeliveryRow[]> =>
  sql.query<DeliveryRow>(
    'select * from webhook_delivery where $1::uuid is null or webhook_id = $1 order by event_at, seq',
    [webhookId ?? null],
  )
const typesOf = async (webhookId?: string) => (await deliveries(webhookId)).map(({ type }) => type)
const outboxOf = (kind: string) => sql.query<{ subject: string }>('select subject from outbox where kind = $1', [kind])

/** A session that becomes ready, is asked something, ends its turn, and ends. */
const whole = async (end: 'deleted' | 'failed' = 'deleted'): Promise<Conversation> => {
  const talk = await buildConversation(sql, { title: 'a title' })
  const turn = await talk.send('hello')
  await talk.ask(turn.id)
  await talk.finish(turn.id)
  const ending =
    end === 'deleted'
      ? { status: 'dead' as const, endReason: 'deleted' as const }
      : { status: 'failed' as const, code: 'oom_killed' as const, reason: 'x'.repeat(5_000) }
  await endSession(sql, talk.id, ending)
  return talk
}

test('each event is written with its delivery and its workflow’s start, in the order of the log', async () => {
  const webhook = await buildWebhook(sql)
  const talk = await whole()
  const rows = await deliveries(webhook.id)
  expect(rows.map(({ type, status, session_id, tries }) => ({ type, status, session_id, tries }))).toEqual(
    ['session.ready', 'session.needs_input', 'turn.finished', 'session.ended'].map((type) => ({
      type,
      status: 'pending',
      session_id: talk.id,
      tries: 0,
    })),
  )
  const log = await sql.query<{ seq: number; created_at: Date }>(
    'select seq, created_at from event where session_id = $1',
    [talk.id],
  )
  for (const { seq, event_at } of rows) expect(log).toContainEqual({ seq, created_at: event_at })
  const started = (await outboxOf('deliver_webhook')).map(({ subject }) => subject)
  expect(started.toSorted()).toEqual(rows.map(({ id }) => id).toSorted())
})

test('they say what has happened, and where', async () => {
  await buildWebhook(sql)
  const talk = await whole()
  const { agent_id } = await talk.session()
  const [ready, asked, finished, ended] = await deliveries()
  const at = { session_id: talk.id, agent_id, title: 'a title' }
  expect(ready?.data).toEqual({ ...at, seq: ready?.seq, spawn_mode: 'warm', attempt: 1, phases: {} })
  expect(asked?.data).toEqual({
    ...at,
    seq: asked?.seq,
    turn_id: expect.any(String),
    permission: { id: expect.any(String), kind: 'execute', title: 'rm -rf build' },
    expires_at: expect.any(String),
  })
  expect(finished?.data).toMatchObject({ ...at, turn_id: asked?.data['turn_id'], status: 'done', error: null })
  expect(ended?.data).toEqual({ ...at, seq: ended?.seq, end_reason: 'deleted', code: null, reason: null })
})

test('a session that failed says why, and not also that it ended', async () => {
  await buildWebhook(sql)
  await whole('failed')
  expect(await typesOf()).toEqual(['session.ready', 'session.needs_input', 'turn.finished', 'session.failed'])
  expect((await deliveries()).at(-1)?.data).toMatchObject({
    end_reason: 'failed:oom_killed',
    code: 'oom_killed',
    reason: 'x'.repeat(2_000),
  })
})

test.each<[WebhookEvent[], string[]]>([
  [['turn.finished'], ['turn.finished']],
  [
    ['session.ready', 'session.ended'],
    ['session.ready', 'session.ended'],
  ],
  [['session.failed'], []],
])('a webhook for %j hears of these alone', async (events, heard) => {
  const webhook = await buildWebhook(sql, { events })
  await whole()
  expect(await typesOf(webhook.id)).toEqual(heard)
})

test('a webhook of an agent hears of its sessions alone', async () => {
  const mine = await buildConversation(sql)
  const { agent_id } = await mine.session()
  const [own, all] = [await buildWebhook(sql, { agent_id }), await buildWebhook(sql)]
  const other = await whole()
  await endSession(sql, mine.id, { status: 'dead', endReason: 'deleted' })
  const sessions = async (id: string) => new Set((await deliveries(id)).map(({ session_id }) => session_id))
  expect(await sessions(own.id)).toEqual(new Set([mine.id]))
  expect(await sessions(all.id)).toEqual(new Set([mine.id, other.id]))
})

test('a disabled webhook hears nothing, one that is enabled again what happens from then on', async () => {
  const webhook = await buildWebhook(sql, { enabled: false })
  const talk = await buildConversation(sql)
  expect(await deliveries()).toEqual([])
  await updateWebhook(sql, webhook.id, { enabled: true })
  await endSession(sql, talk.id, { status: 'dead', endReason: 'deleted' })
  expect(await typesOf()).toEqual(['session.ended'])
})

test('each event is told once, however often it is written', async () => {
  await buildWebhook(sql)
  const talk = await buildConversation(sql)
  const ready = { sessionId: talk.id, attempt: 1, harnessSessionId: 'ses', phases: {} }
  await Promise.all([sessionReady(sql, ready), sessionReady(sql, ready)])
  const turn = await talk.send('hello')
  await talk.ask(turn.id, { journalSeq: 7, requestId: 'r' })
  await talk.ask(turn.id, { journalSeq: 7, requestId: 'r' })
  const end = { turnId: turn.id, status: 'done' as const, reply: null, error: null, usage: null }
  await Promise.all([endTurn(sql, talk.id, end), endTurn(sql, talk.id, end)])
  for (let i = 0; i < 2; i++) await endSession(sql, talk.id, { status: 'dead', endReason: 'deleted' })
  expect(await typesOf()).toEqual(['session.ready', 'session.needs_input', 'turn.finished', 'session.ended'])
  const again = sql.query(
    `insert into webhook_delivery (id, webhook_id, session_id, seq, type, data, event_at, status, created_at, tried_from, tries, attempt_count, attempts)
     select gen_random_uuid(), webhook_id, session_id, seq, type, data, event_at, status, created_at, tried_from, tries, attempt_count, attempts
     from webhook_delivery`,
  )
  await expect(again).rejects.toMatchObject({ code: '23505' })
})

test('what is rolled back was never told', async () => {
  await buildWebhook(sql)
  const talk = await buildConversation(sql)
  const before = await outboxOf('deliver_webhook')
  const rolledBack = sql.tx(async (tx) => {
    await endSession(tx, talk.id, { status: 'dead', endReason: 'deleted' })
    throw new Error('the process dies')
  })
  await expect(rolledBack).rejects.toThrow('the process dies')
  expect(await typesOf()).toEqual(['session.ready'])
  expect(await outboxOf('deliver_webhook')).toEqual(before)
})

test('a webhook that is deleted at that moment keeps no event from being written', async () => {
  const webhook = await buildWebhook(sql)
  const talk = await buildConversation(sql)
  await Promise.all([
    deleteWebhook(sql, webhook.id),
    endSession(sql, talk.id, { status: 'dead', endReason: 'deleted' }),
  ])
  expect(await talk.session()).toMatchObject({ status: 'dead' })
})

test('what a harness says makes no delivery, and the append says how many were made', async () => {
  await buildWebhook(sql, { events: [...WEBHOOK_EVENTS] })
  const talk = await buildConversation(sql)
  const append = { sessionId: talk.id, sandboxId: talk.sandbox.id }
  const says = { type: 'harness' as const, data: { text: 'hello' }, journalSeq: 1 }
  expect(await appendEvents(sql, { ...append, entries: [says] })).toMatchObject({ appended: 1, deliveries: 0 })
  const turn = await talk.send('hello')
  const end = { turnId: turn.id, status: 'failed' as const, reply: null, usage: null }
  const error = { code: 'harness_error', message: 'y'.repeat(5_000) }
  const finished = {
    type: 'turn.finished' as const,
    data: { turn_id: turn.id, status: 'failed', error },
    journalSeq: 2,
  }
  const appended = await appendEvents(sql, { ...append, entries: [finished], turnEnd: { ...end, error } })
  expect(appended).toMatchObject({ appended: 1, deliveries: 1 })
  expect((await deliveries()).at(-1)?.data).toMatchObject({
    status: 'failed',
    error: { code: 'harness_error', message: 'y'.repeat(2_000) },
  })
  expect(await typesOf()).toEqual(['session.ready', 'turn.finished'])
})
