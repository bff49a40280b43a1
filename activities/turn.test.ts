import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { MockActivityEnvironment } from '@temporalio/testing'
import { claimForSession } from '../db/claims.ts'
import { sandboxFailed } from '../db/sandboxes.ts'
import { sessionReady } from '../db/sessions.ts'
import { enqueueTurn, getTurn } from '../db/turns.ts'
import { createLogger } from '../telemetry/log.ts'
import { createMetrics } from '../telemetry/metrics.ts'
import { buildAgent, buildSession, buildWarmSandbox } from '../test/builders.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import type { ActivityDeps } from './deps.ts'
import { turnActivities } from './turn.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createTestDatabase()
})
afterAll(async () => database[Symbol.asyncDispose]())

test('a turn that runs in a sandbox that its session has left is interrupted, so that what waits behind it can run', async () => {
  const { sql } = database.db
  const agent = await buildAgent(sql)
  const claim = { templateHash: agent.id, poolSize: 9, recentAgentHours: 24 }
  await buildWarmSandbox(sql, agent.id, claim)
  const { session, sandbox } = await buildSession(sql, agent.id, { claim })
  await sessionReady(sql, { sessionId: session.id, attempt: 1, harnessSessionId: 'ses', phases: {} })
  const text = { sessionId: session.id, parts: [{ type: 'text', text: 'hi' }], model: null, idempotencyKey: null }
  const { turn } = await enqueueTurn(sql, { ...text, turnId: randomUUID(), bodyHash: null })
  await sandboxFailed(sql, sandbox!.id, { code: 'sandbox_lost', message: 'gone', evidence: null })
  await buildWarmSandbox(sql, agent.id, claim)
  const moved = await claimForSession(sql, session.id, claim)

  const log = createLogger({ level: 'silent', name: 'test' })
  const { runTurn } = turnActivities({ sql, log, metrics: createMetrics() } as ActivityDeps)
  const ids = { turnId: turn.id, sandboxId: moved!.sandbox!.id }
  const outcome = await new MockActivityEnvironment().run(() => runTurn(ids))

  expect(outcome).toBe('unwanted')
  expect(await getTurn(sql, turn.id)).toMatchObject({ status: 'interrupted', error: { code: 'sandbox_lost' } })
})
