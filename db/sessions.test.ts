import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { buildAgent, buildSession } from '../test/builders.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import type { AgentRow } from './entities/agent.ts'
import type { SessionRow } from './entities/session.ts'
import { endSession } from './session-end.ts'
import { listSessions } from './sessions.ts'
import type { PageCursor, Sql } from './sql.ts'

let database: TestDatabase
let sql: Sql
let agent: AgentRow

beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  agent = await buildAgent(sql)
})

const buildSessions = (count: number) => Promise.all(Array.from({ length: count }, () => buildSession(sql, agent.id)))

/** Every page after the first, with something happening before each. */
const readPages = async (limit: number, meanwhile: () => Promise<unknown>): Promise<SessionRow[][]> => {
  const pages: SessionRow[][] = []
  let after: PageCursor | undefined
  for (;;) {
    const page = await listSessions(sql, { agentId: agent.id, limit, ...(after === undefined ? {} : { after }) })
    pages.push(page)
    const last = page.at(-1)
    if (last === undefined || page.length < limit) return pages
    after = { createdAt: last.created_at, id: last.id }
    await meanwhile()
  }
}

test('pages show every session once, newest first, while others are made and end', async () => {
  const made = await buildSessions(30)
  const pages = await readPages(7, async () => {
    const [first] = await buildSessions(4)
    await endSession(sql, first!.session.id, { status: 'dead', endReason: 'deleted' })
  })
  const ids = pages.flat().map(({ id }) => id)
  expect(new Set(ids)).toEqual(new Set(made.map(({ session }) => session.id)))
  expect(ids).toHaveLength(30)
  const times = pages.flat().map(({ created_at }) => created_at.getTime())
  expect(times).toEqual(times.toSorted((a, b) => b - a))
})

test('sessions of the same millisecond are not lost between two pages', async () => {
  await buildSessions(25)
  await sql.query('update session set created_at = $2 where agent_id = $1', [agent.id, new Date()])
  const ids = (await readPages(4, async () => {})).flat().map(({ id }) => id)
  expect(ids).toHaveLength(25)
  expect(new Set(ids).size).toBe(25)
})

test('a list can be of one agent and one status, and carries no blobs', async () => {
  const [first] = await buildSessions(3)
  await buildSession(sql, (await buildAgent(sql)).id)
  await sql.query(`update session set request = '{"files": []}', prompt = 'long' where agent_id = $1`, [agent.id])
  await endSession(sql, first!.session.id, { status: 'dead', endReason: 'deleted' })
  const live = await listSessions(sql, { agentId: agent.id, status: 'creating', limit: 10 })
  expect(live).toHaveLength(2)
  for (const row of live) expect(row).toMatchObject({ request: {}, prompt: null, agent_id: agent.id })
  const [ended] = await listSessions(sql, { agentId: agent.id, status: 'dead', limit: 10 })
  expect(ended?.id).toBe(first!.session.id)
})
