import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { buildAgent, buildSession, buildWarmSandbox, reservation } from '../test/builders.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import type { AgentRow } from './entities/agent.ts'
import { getSandbox, reservePoolSandbox, retireSandbox, sandboxFailed, sandboxGone, sandboxWarm } from './sandboxes.ts'
import { endSession } from './session-end.ts'
import type { Sql } from './sql.ts'

let database: TestDatabase
let sql: Sql
let agent: AgentRow

const lost = { code: 'sandbox_lost' as const, message: 'gone', evidence: null }

beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  await sql.query("update sandbox set state = 'gone'")
  await sql.query('delete from outbox')
  agent = await buildAgent(sql)
})

test('a repeated reservation gives the same row, whatever has become of it and of the limits', async () => {
  const made = reservation(agent.id)
  const first = await reservePoolSandbox(sql, made, { poolSize: 1, maxProvisioning: 1 })
  const again = await Promise.all(
    Array.from({ length: 5 }, () => reservePoolSandbox(sql, made, { poolSize: 0, maxProvisioning: 0 })),
  )
  expect(again).toEqual(again.map(() => first))
  await sandboxWarm(sql, made.id, 'http://127.0.0.1:9')
  expect(await reservePoolSandbox(sql, made, { poolSize: 1, maxProvisioning: 1 })).toMatchObject({
    id: made.id,
    state: 'warm',
  })
})

test('a sandbox is replaced at a second try when its first replacement failed', async () => {
  const old = await buildWarmSandbox(sql, agent.id)
  const limits = { poolSize: 1, maxProvisioning: 1 }
  const first = await reservePoolSandbox(sql, { ...reservation(agent.id), replaces: old.id }, limits)
  await sandboxFailed(sql, first!.id, lost)
  const second = await reservePoolSandbox(sql, { ...reservation(agent.id), replaces: old.id }, limits)
  expect(second).toMatchObject({ state: 'provisioning' })
  expect(await getSandbox(sql, old.id)).toMatchObject({ state: 'warm', retiring: true })
})

test('a replacement that a limit forbids leaves the old sandbox as it was', async () => {
  const old = await buildWarmSandbox(sql, agent.id)
  const none = { poolSize: 1, maxProvisioning: 0 }
  expect(await reservePoolSandbox(sql, { ...reservation(agent.id), replaces: old.id }, none)).toBeNull()
  expect(await getSandbox(sql, old.id)).toMatchObject({ state: 'warm', retiring: false })
})

test('a sandbox that was claimed a moment ago is neither replaced nor retired', async () => {
  const old = await buildWarmSandbox(sql, agent.id)
  await buildSession(sql, agent.id)
  const limits = { poolSize: 9, maxProvisioning: 9 }
  expect(await reservePoolSandbox(sql, { ...reservation(agent.id), replaces: old.id }, limits)).toBeNull()
  expect(await retireSandbox(sql, old.id)).toBeNull()
})

test('both limits hold while sandboxes are reserved, become warm, are claimed and fail at once', async () => {
  const limits = { poolSize: 8, maxProvisioning: 3 }
  const counts = (): Promise<{ held: number; starting: number } | null> =>
    sql.one(
      `select count(*)::int held, (count(*) filter (where state = 'provisioning'))::int starting
       from sandbox where purpose = 'pool' and state in ('provisioning', 'warm')`,
    )
  const worker = async (): Promise<void> => {
    for (let i = 0; i < 8; i++) {
      const row = await reservePoolSandbox(sql, reservation(agent.id), limits)
      if (row === null) await buildSession(sql, agent.id)
      else if (i % 3 === 0) await sandboxFailed(sql, row.id, lost)
      else await sandboxWarm(sql, row.id, 'http://127.0.0.1:9')
    }
  }
  const done = new AbortController()
  const watch = async (): Promise<void> => {
    while (!done.signal.aborted) {
      const now = await counts()
      expect(now!.held).toBeLessThanOrEqual(limits.poolSize)
      expect(now!.starting).toBeLessThanOrEqual(limits.maxProvisioning)
    }
  }
  const watching = watch()
  await Promise.all(Array.from({ length: 12 }, worker))
  done.abort()
  await watching
})

test('the session of a lost sandbox is told in the same step, and the pool that it came from', async () => {
  await buildWarmSandbox(sql, agent.id)
  const { session, sandbox } = await buildSession(sql, agent.id)
  await sql.query('delete from outbox')
  expect(await sandboxFailed(sql, sandbox!.id, lost, sandbox!.epoch)).toMatchObject({ state: 'failed' })
  expect(await sql.query('select kind, subject from outbox order by kind')).toEqual([
    { kind: 'poke_pool', subject: agent.id },
    { kind: 'signal_session', subject: session.id },
  ])
})

test('news from before a hand-over changes nothing and tells nobody', async () => {
  const warm = await buildWarmSandbox(sql, agent.id)
  const { sandbox } = await buildSession(sql, agent.id)
  await sql.query('delete from outbox')
  expect(await sandboxFailed(sql, warm.id, lost, warm.epoch)).toBeNull()
  expect(await getSandbox(sql, warm.id)).toEqual(sandbox)
  expect(await sql.query('select from outbox')).toEqual([])
})

test('a sandbox is gone only after it was given up, and stays gone', async () => {
  await buildWarmSandbox(sql, agent.id)
  const { session, sandbox } = await buildSession(sql, agent.id)
  await sandboxGone(sql, sandbox!.id)
  expect((await getSandbox(sql, sandbox!.id))?.state).toBe('claimed')
  await endSession(sql, session.id, { status: 'dead', endReason: 'deleted' })
  await sandboxGone(sql, sandbox!.id, { exists: false })
  expect(await sandboxFailed(sql, sandbox!.id, lost)).toBeNull()
  expect(await getSandbox(sql, sandbox!.id)).toMatchObject({ state: 'gone', evidence: { exists: false } })
  expect(await getSandbox(sql, randomUUID())).toBeNull()
})
