import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { buildAgent, buildSession, buildWarmSandbox, newSession } from '../test/builders.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { getAgent, listAgents, markAgentDeleted, updateAgent } from './agents.ts'
import { createSession } from './claims.ts'
import { endIfDue } from './flow.ts'
import { getSession, loadSessionPlan } from './sessions.ts'
import type { Sql } from './sql.ts'

let database: TestDatabase
let sql: Sql

beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())

/** An agent with a template of its own, so that no other test's sandbox serves it. */
const buildOwnAgent = () => buildAgent(sql, { template_hash: randomUUID() })
const sessionOf = (agent: { id: string; template_hash: string }) => ({
  claim: { templateHash: agent.template_hash, poolSize: 9, recentAgentHours: 24 },
})

test('an agent that was deleted a moment ago takes no session, and its warm sandbox stays where it is', async () => {
  const agent = await buildOwnAgent()
  const warm = await buildWarmSandbox(sql, agent.id, { templateHash: agent.template_hash })
  await markAgentDeleted(sql, agent.id)
  const creating = createSession(sql, newSession(agent.id, sessionOf(agent)))
  await expect(creating).rejects.toMatchObject({ code: 'not_found' })
  expect(await sql.query('select state, session_id from sandbox where id = $1', [warm.id])).toEqual([
    { state: 'warm', session_id: null },
  ])
})

test('deleting an agent ends its live sessions and tells their workflows and the pool', async () => {
  const agent = await buildOwnAgent()
  await buildWarmSandbox(sql, agent.id, { templateHash: agent.template_hash })
  const [warm, cold] = [
    await buildSession(sql, agent.id, sessionOf(agent)),
    await buildSession(sql, agent.id, sessionOf(agent)),
  ]
  await sql.query('delete from outbox')
  expect(await markAgentDeleted(sql, agent.id)).toBe(true)
  for (const { session } of [warm, cold])
    expect(await getSession(sql, session.id)).toMatchObject({ status: 'dead', end_reason: 'agent_deleted' })
  expect(await sql.query('select state from sandbox where id = $1', [warm.sandbox!.id])).toEqual([{ state: 'ending' }])
  const told = await sql.query<{ subject: string }>('select distinct kind, subject from outbox')
  expect(new Set(told.map(({ subject }) => subject))).toEqual(new Set([warm.session.id, cold.session.id, agent.id]))
  expect(await markAgentDeleted(sql, agent.id)).toBe(false)
  expect(await getAgent(sql, agent.id)).toBeNull()
})

test('an agent deleted under a rush of creates leaves no live session, and nothing deadlocks', async () => {
  for (let round = 0; round < 5; round++) {
    const agent = await buildOwnAgent()
    for (let i = 0; i < 5; i++) await buildWarmSandbox(sql, agent.id, { templateHash: agent.template_hash })
    const creates = Array.from({ length: 30 }, () => createSession(sql, newSession(agent.id, sessionOf(agent))))
    const [made, deleted] = await Promise.all([Promise.allSettled(creates), markAgentDeleted(sql, agent.id)])
    expect(deleted).toBe(true)
    for (const one of made) if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'not_found' })
    const live = "select id from session where agent_id = $1 and status in ('creating', 'ready')"
    expect(await sql.query(live, [agent.id])).toEqual([])
    expect(await sql.query("select id from sandbox where agent_id = $1 and state = 'claimed'", [agent.id])).toEqual([])
  }
})

test('a session that outlives the deletion of its agent by a crash is due at once, and ends for that reason', async () => {
  const agent = await buildOwnAgent()
  const { session } = await buildSession(sql, agent.id, sessionOf(agent))
  expect(await endIfDue(sql, session.id)).toBeNull()
  await sql.query('update agent set deleted_at = now() where id = $1', [agent.id])
  expect((await loadSessionPlan(sql, session.id))!.max_age_at.getTime()).toBeLessThanOrEqual(Date.now() + 1_000)
  expect((await endIfDue(sql, session.id))?.session).toMatchObject({ status: 'dead', end_reason: 'agent_deleted' })
})

test('creates of one agent do not wait for each other', async () => {
  const agent = await buildOwnAgent()
  await sql.tx(async (tx) => {
    await createSession(tx, newSession(agent.id, sessionOf(agent)))
    // The first one has not committed; a second one that waited for its row of the agent would run into the timeout.
    await sql.tx(async (other) => {
      await other.query("set local lock_timeout = '2s'")
      const made = await createSession(other, newSession(agent.id, sessionOf(agent)))
      expect(made.existing).toBe(false)
    })
  })
  expect((await getAgent(sql, agent.id))!.last_session_at).toBeInstanceOf(Date)
})

test('a search finds what it names, not what its wildcards would', async () => {
  await buildAgent(sql, { name: '100% sure' })
  await buildAgent(sql, { name: '100 times' })
  const found = await listAgents(sql, { limit: 10, offset: 0, search: '100%' })
  expect(found.data.map(({ name }) => name)).toEqual(['100% sure'])
  expect(found.total).toBe(1)
})

test('a patch changes what it names and nothing else', async () => {
  const agent = await buildOwnAgent()
  const patched = await updateAgent(sql, agent.id, { name: 'new', env_vars: { KEY: 'sealed' } })
  expect(patched).toEqual({ ...agent, name: 'new', env_vars: { KEY: 'sealed' }, updated_at: expect.any(Date) })
})
