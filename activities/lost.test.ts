import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { setTimeout as sleep } from 'node:timers/promises'
import { lostConcurrency } from '../domain/limits.ts'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import type { SandboxDriver } from '../sandbox/driver.ts'
import { createLogger } from '../telemetry/log.ts'
import { createMetrics } from '../telemetry/metrics.ts'
import { buildAgent, buildWarmSandbox } from '../test/builders.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import type { ActivityDeps } from './deps.ts'
import { createLostHandler } from './lost.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createTestDatabase()
})
afterAll(async () => database[Symbol.asyncDispose]())

const handler = (lossOf: SandboxDriver['lossOf']) =>
  createLostHandler({
    sql: database.db.sql,
    driver: { lossOf },
    log: createLogger({ level: 'silent', name: 'test' }),
    metrics: createMetrics(),
    outbox: { kick() {} },
  } as object as ActivityDeps)

test('all sandboxes of a node are noted as lost, with evidence, some at a time; one that fails keeps no other', async () => {
  const { sql } = database.db
  const agent = await buildAgent(sql)
  const rows: SandboxRow[] = []
  for (let i = 0; i < 3 * lostConcurrency; i++) rows.push(await buildWarmSandbox(sql, agent.id))
  const released = Promise.withResolvers<void>()
  const under: string[] = []
  const onLost = handler(async (name) => {
    under.push(name)
    await released.promise
    if (name === rows[0]!.name) throw new Error('away')
    return { code: 'sandbox_lost', message: `${name} is gone`, evidence: { exists: false } }
  })
  const told = rows.map(({ name }) => onLost(name))
  while (under.length < lostConcurrency) await sleep(10)
  // Time for one too many.
  await sleep(200)
  expect(under.length).toBe(lostConcurrency)
  released.resolve()
  await Promise.all(told)
  const noted = await sql.query<{ name: string; state: string; failure_message: string | null }>(
    'select name, state, failure_message from sandbox where agent_id = $1 order by created_at, name',
    [agent.id],
  )
  const stateOf = new Map(noted.map(({ name, state, failure_message }) => [name, [state, failure_message]]))
  expect(rows.map(({ name }) => stateOf.get(name))).toEqual([
    ['warm', null],
    ...rows.slice(1).map(({ name }) => ['failed', `${name} is gone`]),
  ])
})
