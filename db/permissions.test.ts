import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { buildConversation, question } from '../test/conversation.ts'
import type { Conversation } from '../test/conversation.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { appendEvents, readEvents } from './events.ts'
import { endIfDue } from './flow.ts'
import {
  decidePermission,
  expirePermissions,
  listPermissions,
  permissionDelivered,
  turnWishes,
  waitingForInput,
} from './permissions.ts'
import { endSession } from './session-end.ts'
import { listSessions } from './sessions.ts'
import type { Sql } from './sql.ts'
import { abortTurns } from './queue.ts'
import { endStrayTurn } from './turns.ts'

let database: TestDatabase
let sql: Sql
let talk: Conversation
let turn: string

beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  talk = await buildConversation(sql)
  turn = (await talk.send('go')).id
})

const all = () => listPermissions(sql, talk.id, { status: null, limit: 100 })
const only = async () => {
  const [permission, ...more] = await all()
  expect(more).toEqual([])
  return permission!
}
const decide = async (decision: 'allow' | 'allow_always' | 'deny') =>
  decidePermission(sql, talk.id, { id: (await only()).id, decision })
const logOf = async (...types: string[]) => (await talk.log()).filter(({ type }) => types.includes(type))
const waits = async () => (await waitingForInput(sql, [talk.id])).has(talk.id)

test('what the harness asks is a row and an event under the same id; the journal told twice asks once', async () => {
  await talk.ask(turn, { waitMs: 60_000, journalSeq: 7, requestId: 'per_7' })
  await talk.ask(turn, { waitMs: 60_000, journalSeq: 7, requestId: 'per_7' })
  const permission = await only()
  expect(permission).toMatchObject({
    status: 'open',
    turn_id: turn,
    request_id: 'per_7',
    kind: 'execute',
    decision: null,
  })
  expect(permission.expires_at.getTime() - permission.asked_at.getTime()).toBe(60_000)
  expect(await logOf('permission.asked')).toEqual([
    {
      type: 'permission.asked',
      data: {
        turn_id: turn,
        permission: {
          id: permission.id,
          kind: 'execute',
          title: 'rm -rf build',
          tool: { name: 'bash', call_id: 'call_1', input: { command: 'rm -rf build' } },
        },
        expires_at: permission.expires_at.toISOString(),
      },
    },
  ])
})

test('the first of many answers counts, and is told once', async () => {
  await talk.ask(turn)
  const answers = await Promise.all(Array.from({ length: 10 }, (_, i) => decide(i % 2 === 0 ? 'allow' : 'deny')))
  expect(answers.filter((answer) => answer?.decided === true)).toHaveLength(1)
  const { decision, status } = await only()
  expect(new Set(answers.map((answer) => answer?.permission.decision))).toEqual(new Set([decision]))
  expect(status).toBe(decision === 'allow' ? 'allowed' : 'denied')
  expect(await logOf('permission.replied')).toMatchObject([{ data: { turn_id: turn, decision, decided_by: 'user' } }])
})

test('a session that waits for a person is found by it, and not by its status', async () => {
  expect(await waits()).toBe(false)
  await talk.ask(turn)
  expect(await waits()).toBe(true)
  expect(await talk.session()).toMatchObject({ status: 'ready' })
  const found = async (needsInput: boolean) =>
    (await listSessions(sql, { needsInput, limit: 200 })).some(({ id }) => id === talk.id)
  expect([await found(true), await found(false)]).toEqual([true, false])
  await decide('deny')
  expect(await waits()).toBe(false)
  expect([await found(true), await found(false)]).toEqual([false, true])
})

test('an answer that comes too late finds the question denied, by whom it is told; the turn goes on', async () => {
  await talk.ask(turn, { waitMs: 0 })
  expect(await decide('allow')).toMatchObject({ decided: false, permission: { status: 'expired', decision: 'deny' } })
  expect(await expirePermissions(sql, talk.id)).toBe(0)
  expect(await logOf('permission.replied', 'permission.expired')).toMatchObject([
    { type: 'permission.expired', data: { turn_id: turn, reason: 'deadline' } },
  ])
  expect((await talk.turns())[0]?.status).toBe('running')
  expect((await turnWishes(sql, turn))?.answers).toMatchObject([{ decision: 'deny' }])
})

test('questions that nobody answers expire each by its own deadline', async () => {
  await talk.ask(turn, { waitMs: 0 })
  await talk.ask(turn, { waitMs: 60_000 })
  expect(await turnWishes(sql, turn)).toMatchObject({ due: true, interrupt: false, answers: [] })
  expect(await expirePermissions(sql, talk.id)).toBe(1)
  expect((await all()).map(({ status }) => status).toSorted()).toEqual(['expired', 'open'])
  expect(await turnWishes(sql, turn)).toMatchObject({ due: false, answers: [{ decision: 'deny' }] })
})

test('an answer is wished for until the sandbox has it', async () => {
  await talk.ask(turn, { requestId: 'per_a' })
  await decide('allow_always')
  const permission = await only()
  expect((await turnWishes(sql, turn))?.answers).toEqual([
    { id: permission.id, request_id: 'per_a', decision: 'allow_always' },
  ])
  await permissionDelivered(sql, permission.id)
  expect((await turnWishes(sql, turn))?.answers).toEqual([])
  expect(await only()).toMatchObject({ status: 'allowed', delivered_at: expect.any(Date) })
})

test('an interrupt is wished for until the turn is over', async () => {
  await abortTurns(sql, talk.id)
  expect(await turnWishes(sql, turn)).toMatchObject({ interrupt: true })
  await talk.finish(turn, undefined, 'cancelled')
  expect(await turnWishes(sql, turn)).toBeNull()
})

test.each([
  ['its turn ends', 'turn_over', () => talk.finish(turn, undefined, 'cancelled')],
  [
    'its sandbox is lost',
    'turn_over',
    async () => {
      await talk.move()
      await endStrayTurn(sql, talk.id, { turnId: turn, status: 'interrupted', reply: null, error: null, usage: null })
    },
  ],
  ['its session ends', 'session_ended', () => endSession(sql, talk.id, { status: 'dead', endReason: 'deleted' })],
])('a question is over when %s: it is told before the end, and takes no answer', async (_, reason, end) => {
  await talk.ask(turn)
  await end()
  expect(await decide('allow')).toMatchObject({ decided: false, permission: { status: 'cancelled', decision: null } })
  expect(await logOf('permission.expired', 'turn.finished')).toMatchObject([
    { type: 'permission.expired', data: { turn_id: turn, permission_id: (await only()).id, reason } },
    { type: 'turn.finished', data: { turn_id: turn } },
  ])
})

test('a question and the end of its turn in one group of the journal are told in their order', async () => {
  const asks = { turnId: turn, request: question(), waitMs: 60_000 }
  await appendEvents(sql, {
    sessionId: talk.id,
    sandboxId: talk.sandbox.id,
    entries: [
      { journalSeq: 1, type: 'harness', data: { type: 'before' } },
      { journalSeq: 2, type: 'permission.asked', data: {}, asks },
      { journalSeq: 3, type: 'harness.exited', data: {} },
      { journalSeq: 4, type: 'turn.finished', data: { turn_id: turn, status: 'failed' } },
      { journalSeq: 5, type: 'harness.restarted', data: {} },
    ],
    turnEnd: { turnId: turn, status: 'failed', reply: null, error: null, usage: null },
  })
  const { events } = await readEvents(sql, { sessionId: talk.id, after: 0, limit: 100 })
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, i) => i + 1))
  expect(events.slice(-6).map(({ type }) => type)).toEqual([
    'harness',
    'permission.asked',
    'harness.exited',
    'permission.expired',
    'turn.finished',
    'harness.restarted',
  ])
})

test('a session does not end of idleness while its harness waits for a person, and does by its age', async () => {
  await talk.ask(turn, { waitMs: 3_600_000 })
  await sql.query(
    "update session set idle_timeout_ms = 1000, last_activity_at = now() - interval '1 hour' where id = $1",
    [talk.id],
  )
  expect(await endIfDue(sql, talk.id)).toBeNull()
  await sql.query("update session set max_age_at = now() - interval '1 second' where id = $1", [talk.id])
  expect(await endIfDue(sql, talk.id)).toMatchObject({ session: { end_reason: 'max_lifetime' } })
  expect((await only()).status).toBe('cancelled')
})

test('a question of another session is not found', async () => {
  await talk.ask(turn)
  const other = await buildConversation(sql)
  expect(await decidePermission(sql, other.id, { id: (await only()).id, decision: 'allow' })).toBeNull()
})
