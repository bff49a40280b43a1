import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { buildAgent, buildSession, buildWarmSandbox } from '../test/builders.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import type { SandboxRow } from './entities/sandbox.ts'
import type { SessionRow } from './entities/session.ts'
import { appendEvents, journalCursor, readEvents } from './events.ts'
import { createListener } from './listen.ts'
import { endSession } from './session-end.ts'
import { loadSessionPlan, sessionReady, setPhase } from './sessions.ts'
import type { Sql } from './sql.ts'
import { bodyHash, enqueueTurn, endTurn, getTurn, startTurn } from './turns.ts'

let database: TestDatabase
let sql: Sql
let session: SessionRow
let sandbox: SandboxRow

beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  const agent = await buildAgent(sql)
  await buildWarmSandbox(sql, agent.id, { templateHash: agent.id })
  const made = await buildSession(sql, agent.id, {
    claim: { templateHash: agent.id, poolSize: 9, recentAgentHours: 24 },
  })
  sandbox = made.sandbox!
  session = (await sessionReady(sql, { sessionId: made.session.id, attempt: 1, harnessSessionId: 'ses', phases: {} }))!
})

const entries = (from: number, count: number) =>
  Array.from({ length: count }, (_, i) => ({ type: 'harness' as const, data: { n: from + i }, journalSeq: from + i }))
const append = (from: number, count: number) =>
  appendEvents(sql, { sessionId: session.id, sandboxId: sandbox.id, entries: entries(from, count) })
const turn = (over = {}) => ({
  sessionId: session.id,
  turnId: randomUUID(),
  parts: [{ type: 'text', text: 'hi' }],
  model: null,
  idempotencyKey: null,
  bodyHash: null,
  ...over,
})

test('numbers have no gap and no repetition, however many write at once', async () => {
  await Promise.all([
    ...Array.from({ length: 20 }, (_, i) => append(1, 10 * (i + 1))),
    ...Array.from({ length: 5 }, () => enqueueTurn(sql, turn())),
  ])
  const { events: log } = await readEvents(sql, { sessionId: session.id, after: 0, limit: 1_000 })
  expect(log.map(({ seq }) => seq)).toEqual(log.map((_, i) => i + 1))
  const numbers = log.filter(({ type }) => type === 'harness').map(({ data }) => data['n'])
  expect(numbers).toEqual(Array.from({ length: 200 }, (_, i) => i + 1))
  expect(await journalCursor(sql, sandbox.id)).toBe(200)
})

test('appending again what is there changes nothing', async () => {
  await append(1, 10)
  const again = await append(5, 10)
  expect(again.appended).toBe(4)
  expect((await append(1, 14)).appended).toBe(0)
})

test('a NUL character, which jsonb cannot hold, does not stop the log', async () => {
  const text = 'a\u0000b \\u0000 c'
  await appendEvents(sql, {
    sessionId: session.id,
    sandboxId: sandbox.id,
    entries: [{ type: 'harness', data: { text }, journalSeq: 1 }],
  })
  const { events: log } = await readEvents(sql, { sessionId: session.id, after: 2, limit: 10 })
  expect(log[0]?.data).toEqual({ text: 'a\ufffdb \\u0000 c' })
})

test('a turn ends in the same step as its event, and only once', async () => {
  const { turn: made } = await enqueueTurn(sql, turn())
  const reply = { info: { id: 'msg' }, parts: [{ type: 'text', text: 'ok' }] }
  const turnEnd = { turnId: made.id, status: 'done' as const, reply, error: null, usage: null }
  const end = {
    sessionId: session.id,
    sandboxId: sandbox.id,
    entries: [{ type: 'turn.finished' as const, data: { turn_id: made.id }, journalSeq: 1 }],
    turnEnd,
  }
  await Promise.all([appendEvents(sql, end), appendEvents(sql, end)])
  expect(await getTurn(sql, made.id)).toMatchObject({ status: 'done', reply })
  const { events: log } = await readEvents(sql, { sessionId: session.id, after: 0, limit: 100 })
  expect(log.filter(({ type }) => type === 'turn.finished')).toHaveLength(1)
  expect(await endTurn(sql, session.id, { ...turnEnd, status: 'interrupted' })).toBe(false)
})

test('the first message starts at once in the session sandbox, the next one waits for it', async () => {
  const first = await enqueueTurn(sql, turn())
  const second = await enqueueTurn(sql, turn())
  expect([first.startNow?.id, first.turn.status]).toEqual([sandbox.id, 'running'])
  expect([second.startNow, second.turn.status, second.turn.seq]).toEqual([null, 'queued', 2])
  expect(await loadSessionPlan(sql, session.id)).toMatchObject({
    turn_id: first.turn.id,
    turn_status: 'running',
    sandbox_state: 'claimed',
  })
  expect((await startTurn(sql, first.turn.id, sandbox.id))?.id).toBe(first.turn.id)
  expect(await startTurn(sql, first.turn.id, randomUUID())).toBeNull()
})

test('the same message under its key is one turn; another message under it is a conflict', async () => {
  const key = { idempotencyKey: 'k', bodyHash: bodyHash({ text: 'hi' }) }
  const all = await Promise.all(Array.from({ length: 8 }, () => enqueueTurn(sql, turn(key))))
  expect(new Set(all.map((one) => one.turn.id)).size).toBe(1)
  await expect(enqueueTurn(sql, turn({ ...key, bodyHash: 'other' }))).rejects.toMatchObject({ code: 'conflict' })
})

test('an ended session takes no message and no event, and its open turns are over', async () => {
  const running = await enqueueTurn(sql, turn())
  const waiting = await enqueueTurn(sql, turn())
  await endSession(sql, session.id, { status: 'dead', endReason: 'deleted' })
  await expect(enqueueTurn(sql, turn())).rejects.toMatchObject({ code: 'gone' })
  expect((await getTurn(sql, running.turn.id))?.status).toBe('cancelled')
  expect((await getTurn(sql, waiting.turn.id))?.status).toBe('cancelled')
  const { events: before } = await readEvents(sql, { sessionId: session.id, after: 0, limit: 100 })
  expect(await append(1, 3)).toMatchObject({ appended: 0, ended: true })
  expect(before.at(-1)?.type).toBe('session.ended')
  expect((await readEvents(sql, { sessionId: session.id, after: 0, limit: 100 })).events).toHaveLength(before.length)
})

test('phases are noted only while the session is created', async () => {
  await setPhase(sql, session.id, 'pod_pending')
  const { events: log } = await readEvents(sql, { sessionId: session.id, after: 0, limit: 100 })
  expect(log.map(({ type }) => type)).toEqual(['session.created', 'session.ready'])
})

test('a listener hears of its sessions, and again after its connection was cut', async () => {
  await using listener = createListener(database.url)
  const heard = () => new Promise<void>((resolve) => listener.subscribe(session.id, resolve))
  const connected = heard()
  await connected // a subscriber is woken once when the connection stands
  const news = heard()
  await append(1, 1)
  await news
  const back = heard()
  await sql.query(
    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'lap listen' and datname = current_database()",
  )
  await back
  const more = heard()
  await append(2, 1)
  await more
})
