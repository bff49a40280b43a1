import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { buildAgent, buildSession, buildWarmSandbox, newSession } from '../test/builders.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { isAppError } from '../domain/errors.ts'
import { liveSessionsMax } from '../domain/limits.ts'
import { createSession } from './claims.ts'
import type { Created, NewSession } from './claims.ts'
import { createDatabase } from './database.ts'
import type { AgentRow } from './entities/agent.ts'
import { endSession } from './session-end.ts'
import type { Sql } from './sql.ts'

let database: TestDatabase
let sql: Sql
let agent: AgentRow

beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  await sql.query("update sandbox set state = 'gone'")
  agent = await buildAgent(sql)
})

/** As a client does it: the same request again under its key, until it is answered. */
const createUntilAnswered = async (at: Sql, request: NewSession): Promise<Created> => {
  for (;;)
    try {
      return await createSession(at, { ...request, id: randomUUID() })
    } catch (error) {
      if (!isAppError(error) || error.code !== 'unavailable') throw error
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
}

test('creates whose connections are killed and that are repeated under their key make one session each and share no sandbox', async () => {
  await using admin = await createDatabase({ url: database.url, applicationName: 'admin' })
  for (let i = 0; i < 20; i++) await buildWarmSandbox(sql, agent.id)
  const done = new AbortController()
  const kill = async (): Promise<number> => {
    let killed = 0
    while (!done.signal.aborted) {
      const rows = await admin.sql.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and application_name = 'test' and random() < 0.5`,
      )
      killed += rows.length
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    return killed
  }
  const killing = kill()
  const keys = Array.from({ length: 200 }, () => randomUUID())
  const made = await Promise.all(
    keys.map((key) => createUntilAnswered(sql, newSession(agent.id, { idempotencyKey: key, bodyHash: 'b' }))),
  )
  done.abort()
  expect(await killing).toBeGreaterThan(0)
  expect(new Set(made.map(({ session }) => session.id)).size).toBe(200)
  const [claimed, sessions, starts] = await Promise.all([
    sql.query<{ id: string; session_id: string }>("select id, session_id from sandbox where state = 'claimed'"),
    sql.query<{ sandbox_id: string | null }>('select sandbox_id from session where agent_id = $1', [agent.id]),
    sql.query(
      "select from outbox where kind = 'start_session' and subject in (select id from session where agent_id = $1)",
      [agent.id],
    ),
  ])
  expect(sessions).toHaveLength(200)
  expect(starts).toHaveLength(200)
  expect(new Set(claimed.map(({ session_id }) => session_id)).size).toBe(20)
  const used = sessions.flatMap(({ sandbox_id }) => sandbox_id ?? [])
  expect(used.toSorted()).toEqual(claimed.map(({ id }) => id).toSorted())
})

test('a full platform makes no session, claims nothing, and still answers a repeated request', async () => {
  const key = { idempotencyKey: randomUUID(), bodyHash: 'b' }
  const { session } = await buildSession(sql, agent.id, key)
  await sql.query(
    `insert into session (id, agent_id, status, spawn_mode, claim_outcome, request, model, attempt, bound_attempt, phases, last_seq,
       idle_timeout_ms, created_at, last_activity_at, max_age_at, creating_deadline_at, created_by)
     select gen_random_uuid(), agent_id, 'ready', spawn_mode, claim_outcome, '{}', model, 1, 1, '{}', 1, 1, now(), now(), now(), now(), 'test'
     from session, generate_series(1, $2) where session.id = $1`,
    [session.id, liveSessionsMax],
  )
  const warm = await buildWarmSandbox(sql, agent.id)
  await expect(createSession(sql, newSession(agent.id))).rejects.toMatchObject({
    code: 'rate_limited',
    retryAfterSeconds: 10,
  })
  expect(await sql.query('select state from sandbox where id = $1', [warm.id])).toEqual([{ state: 'warm' }])
  expect(await createSession(sql, newSession(agent.id, key))).toMatchObject({
    existing: true,
    session: { id: session.id },
  })
  await sql.query("update session set status = 'dead', ended_at = now()")
  expect((await buildSession(sql, agent.id)).sandbox?.id).toBe(warm.id)
})

test('a repeated request is answered also when its session has ended or its agent is gone', async () => {
  const key = { idempotencyKey: randomUUID(), bodyHash: 'b' }
  const { session } = await buildSession(sql, agent.id, key)
  await endSession(sql, session.id, { status: 'dead', endReason: 'deleted' })
  await sql.query('update agent set deleted_at = now() where id = $1', [agent.id])
  const again = await createSession(sql, newSession(agent.id, key))
  expect(again).toMatchObject({ existing: true, session: { id: session.id, status: 'dead' } })
  const other = createSession(sql, newSession(agent.id, { ...key, bodyHash: 'other' }))
  await expect(other).rejects.toMatchObject({ code: 'conflict' })
})

test('the oldest warm sandbox is given first', async () => {
  const warm = [await buildWarmSandbox(sql, agent.id), await buildWarmSandbox(sql, agent.id)]
  await sql.query("update sandbox set ready_at = ready_at - interval '1 minute' where id = $1", [warm[1]!.id])
  expect((await buildSession(sql, agent.id)).sandbox?.id).toBe(warm[1]!.id)
  expect((await buildSession(sql, agent.id)).sandbox?.id).toBe(warm[0]!.id)
})
