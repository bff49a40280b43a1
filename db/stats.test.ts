import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { buildAgent, buildSession, buildWarmSandbox } from '../test/builders.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { claimForSession } from './claims.ts'
import { sandboxFailed } from './sandboxes.ts'
import { getSession, sessionReady } from './sessions.ts'
import type { Sql } from './sql.ts'
import { adminStats, sessionFacts } from './stats.ts'

let database: TestDatabase
let sql: Sql

beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())

test('what the pool waited is counted for the last 24 hours, of sandboxes that wait and of those that do no more', async () => {
  const agent = await buildAgent(sql)
  const waiting = await buildWarmSandbox(sql, agent.id)
  const claimed = await buildWarmSandbox(sql, agent.id)
  const ended = await buildWarmSandbox(sql, agent.id)
  const old = await buildWarmSandbox(sql, agent.id)
  const set = (id: string, ready: string, claimedAt: string | null, endedAt: string | null) =>
    sql.query(
      `update sandbox set ready_at = now() - $2::interval, claimed_at = now() - $3::interval, ended_at = now() - $4::interval
       where id = $1`,
      [id, ready, claimedAt, endedAt],
    )
  await set(waiting.id, '1 hour', null, null)
  await set(claimed.id, '30 hours', '23 hours', '1 hour')
  await set(ended.id, '4 hours', null, '3 hours')
  await set(old.id, '50 hours', '30 hours', null)
  const { idle_sandbox_seconds } = await adminStats(sql)
  expect(Math.round(idle_sandbox_seconds / 3_600)).toBe(3)
})

test('a session has moved when it went on in another sandbox, not when the one that it got was dead', async () => {
  const agent = await buildAgent(sql)
  const claim = { templateHash: agent.id, poolSize: 9, recentAgentHours: 24 }
  await buildWarmSandbox(sql, agent.id, { templateHash: agent.id })
  const { session, sandbox } = await buildSession(sql, agent.id, { claim })
  const next = async (lost: string): Promise<string> => {
    await sandboxFailed(sql, lost, { code: 'sandbox_lost', message: 'gone', evidence: null })
    await buildWarmSandbox(sql, agent.id, { templateHash: agent.id })
    return (await claimForSession(sql, session.id, claim))!.sandbox!.id
  }
  const moves = async () => (await sessionFacts(sql, (await getSession(sql, session.id))!)).moves
  const ready = (attempt: number) =>
    sessionReady(sql, { sessionId: session.id, attempt, harnessSessionId: 'ses', phases: {} })
  const second = await next(sandbox!.id)
  await ready(2)
  expect(await moves()).toBe(0)
  await next(second)
  await ready(3)
  expect(await moves()).toBe(1)
})
