import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { buildAgent, buildSession, buildWarmSandbox } from '../test/builders.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { claimForSession } from './claims.ts'
import type { SandboxRow } from './entities/sandbox.ts'
import type { SessionRow } from './entities/session.ts'
import { readEvents } from './events.ts'
import { sandboxFailed } from './sandboxes.ts'
import { sessionReady } from './sessions.ts'
import type { Sql } from './sql.ts'
import { endStrayTurn, enqueueTurn, getTurn, startTurn } from './turns.ts'

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
  session = made.session
})

const ready = () => sessionReady(sql, { sessionId: session.id, attempt: 1, harnessSessionId: 'ses', phases: {} })

const message = (parts = [{ type: 'text', text: 'hi' }]) => ({
  sessionId: session.id,
  turnId: randomUUID(),
  parts,
  model: null,
  idempotencyKey: null,
  bodyHash: null,
})

/** The session's sandbox fails, and the session gets another one. */
const move = async (): Promise<SandboxRow> => {
  await sandboxFailed(sql, sandbox.id, { code: 'sandbox_lost', message: 'gone', evidence: null })
  await buildWarmSandbox(sql, session.agent_id, { templateHash: claim.templateHash })
  return (await claimForSession(sql, session.id, claim))!.sandbox!
}

const interrupted = (turnId: string) => ({
  turnId,
  status: 'interrupted' as const,
  reply: null,
  error: null,
  usage: null,
})

test('a turn begins in the sandbox of its session only: in one that the session has left it stays queued', async () => {
  const { turn } = await enqueueTurn(sql, message())
  const next = await move()
  expect(await startTurn(sql, turn.id, sandbox.id)).toBeNull()
  expect(await getTurn(sql, turn.id)).toMatchObject({ status: 'queued', sandbox_id: null })
  expect(await startTurn(sql, turn.id, next.id)).toMatchObject({ status: 'running', sandbox_id: next.id })
})

test('a turn that runs in a sandbox that the session has left is ended once, one in its own sandbox is not', async () => {
  await ready()
  const { turn } = await enqueueTurn(sql, message())
  expect(turn.status).toBe('running')
  expect(await endStrayTurn(sql, session.id, interrupted(turn.id))).toBe(false)
  await move()
  expect(await endStrayTurn(sql, session.id, interrupted(turn.id))).toBe(true)
  expect(await endStrayTurn(sql, session.id, interrupted(turn.id))).toBe(false)
  expect((await getTurn(sql, turn.id))?.status).toBe('interrupted')
  const { events } = await readEvents(sql, { sessionId: session.id, after: 0, limit: 100 })
  expect(events.filter(({ type }) => type === 'turn.finished')).toHaveLength(1)
})
