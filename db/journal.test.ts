import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { buildAgent, buildSession, buildWarmSandbox } from '../test/builders.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import type { SandboxRow } from './entities/sandbox.ts'
import type { SessionRow } from './entities/session.ts'
import { claimForSession } from './claims.ts'
import { appendEvents, readEvents } from './events.ts'
import { sandboxFailed } from './sandboxes.ts'
import { endSession } from './session-end.ts'
import { getSession, sessionReady } from './sessions.ts'
import type { Sql } from './sql.ts'
import { enqueueTurn, getTurn } from './turns.ts'

let database: TestDatabase
let sql: Sql
let session: SessionRow
let sandbox: SandboxRow
let claim: { templateHash: string; poolSize: number; recentAgentHours: number }

beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  const agent = await buildAgent(sql)
  claim = { templateHash: agent.id, poolSize: 9, recentAgentHours: 24 }
  await buildWarmSandbox(sql, agent.id, { templateHash: agent.id })
  const made = await buildSession(sql, agent.id, { claim })
  sandbox = made.sandbox!
  session = (await sessionReady(sql, { sessionId: made.session.id, attempt: 1, harnessSessionId: 'ses', phases: {} }))!
})

const entry = (journalSeq: number, data: Record<string, unknown> = { n: journalSeq }) => ({
  type: 'harness' as const,
  data,
  journalSeq,
})
const append = (from: number, to: number) =>
  appendEvents(sql, {
    sessionId: session.id,
    sandboxId: sandbox.id,
    entries: Array.from({ length: to - from + 1 }, (_, i) => entry(from + i)),
  })
const message = (over = {}) => ({
  sessionId: session.id,
  turnId: randomUUID(),
  parts: [{ type: 'text', text: 'hi' }],
  model: null,
  idempotencyKey: null,
  bodyHash: null,
  ...over,
})
const finished = (turnId: string, journalSeq: number) => ({
  type: 'turn.finished' as const,
  data: { turn_id: turnId },
  journalSeq,
})
const endOf = (turnId: string) => ({ turnId, status: 'done' as const, reply: null, error: null, usage: null })
const logOf = async (type: string) =>
  (await readEvents(sql, { sessionId: session.id, after: 0, limit: 1_000 })).events.filter((one) => one.type === type)

test('batches that come out of order lose nothing and repeat nothing', async () => {
  expect((await append(11, 20)).appended).toBe(10)
  expect((await append(1, 12)).appended).toBe(10)
  expect((await append(1, 20)).appended).toBe(0)
  const log = await logOf('harness')
  expect(log.map(({ data }) => data['n'] as number).toSorted((a, b) => a - b)).toEqual(
    Array.from({ length: 20 }, (_, i) => i + 1),
  )
  expect(log.map(({ seq }) => seq)).toEqual(log.map((_, i) => log[0]!.seq + i))
})

test('only the sandbox that the session has now writes to its log', async () => {
  await append(1, 2)
  await sandboxFailed(sql, sandbox.id, { code: 'sandbox_lost', message: 'gone', evidence: null })
  await buildWarmSandbox(sql, session.agent_id, { templateHash: claim.templateHash })
  const moved = await claimForSession(sql, session.id, claim)
  expect(await append(3, 5)).toMatchObject({ appended: 0, ended: true })
  const stranger = { sessionId: session.id, sandboxId: randomUUID(), entries: [entry(1)] }
  expect(await appendEvents(sql, stranger)).toMatchObject({ appended: 0, ended: true })
  const present = { sessionId: session.id, sandboxId: moved!.sandbox!.id, entries: [entry(1)] }
  expect(await appendEvents(sql, present)).toMatchObject({ appended: 1, ended: false })
})

test('a turn ends once in the log, however often its sandbox says so', async () => {
  const { turn } = await enqueueTurn(sql, message())
  const ids = { sessionId: session.id, sandboxId: sandbox.id }
  const entries = [finished(turn.id, 1), finished(turn.id, 2), entry(3)]
  await Promise.all([
    appendEvents(sql, { ...ids, entries, turnEnd: endOf(turn.id) }),
    appendEvents(sql, { ...ids, entries: [finished(turn.id, 4)], turnEnd: endOf(turn.id) }),
    appendEvents(sql, { ...ids, entries: [finished(turn.id, 5)] }),
  ])
  expect(await logOf('turn.finished')).toHaveLength(1)
  expect((await getTurn(sql, turn.id))?.status).toBe('done')
})

test('the late end of an earlier turn does not end the one that runs now', async () => {
  const { turn } = await enqueueTurn(sql, message())
  const ids = { sessionId: session.id, sandboxId: sandbox.id }
  await appendEvents(sql, { ...ids, entries: [finished(randomUUID(), 1), entry(2)] })
  expect(await logOf('turn.finished')).toEqual([])
  expect(await logOf('harness')).toHaveLength(1)
  expect((await getTurn(sql, turn.id))?.status).toBe('running')
})

test.each([
  ['deleted', { status: 'dead', endReason: 'deleted' }, 'cancelled'],
  ['idle', { status: 'dead', endReason: 'idle_timeout' }, 'cancelled'],
  ['too old', { status: 'dead', endReason: 'max_lifetime' }, 'cancelled'],
  ['failed', { status: 'failed', code: 'sandbox_lost', reason: 'too often' }, 'interrupted'],
] as const)('the running turn of a session that is %s ends in the log and in its row', async (_, ending, status) => {
  const { turn } = await enqueueTurn(sql, message())
  const waiting = await enqueueTurn(sql, message())
  await endSession(sql, session.id, ending)
  expect((await getTurn(sql, turn.id))?.status).toBe(status)
  expect((await getTurn(sql, waiting.turn.id))?.status).toBe('cancelled')
  const ends = await logOf('turn.finished')
  expect(ends.map(({ data }) => [data['turn_id'], data['status']])).toEqual([
    [turn.id, status],
    [waiting.turn.id, 'cancelled'],
  ])
  expect((await logOf('session.ended')).map(({ seq }) => seq)).toEqual([(await getSession(sql, session.id))!.last_seq])
})

test('text that Postgres cannot hold is kept with the replacement character, wherever it comes from', async () => {
  const text = 'a\0b\ud83dc'
  const { turn } = await enqueueTurn(sql, message({ parts: [{ type: 'text', text }] }))
  await appendEvents(sql, {
    sessionId: session.id,
    sandboxId: sandbox.id,
    entries: [
      entry(1, { [text]: text }),
      { ...finished(turn.id, 2), data: { turn_id: turn.id, error: { message: text } } },
    ],
    turnEnd: { ...endOf(turn.id), status: 'failed', error: { code: 'upstream', message: text } },
  })
  await sandboxFailed(sql, sandbox.id, { code: 'harness_exited', message: text, evidence: { logs: [text] } })
  await endSession(sql, session.id, { status: 'failed', code: 'harness_exited', reason: text })
  const kept = 'a\ufffdb\ufffdc'
  expect((await getTurn(sql, turn.id))?.error?.message).toBe(kept)
  expect((await logOf('harness'))[0]?.data).toEqual({ [kept]: kept })
  expect((await getSession(sql, session.id))?.failure_reason).toBe(kept)
})
