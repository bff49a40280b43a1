import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { MockActivityEnvironment } from '@temporalio/testing'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import type { ListedSandbox, SandboxDriver } from '../sandbox/driver.ts'
import type { Repairs } from '../telemetry/events/ledger.ts'
import { getSession, sessionReady } from '../db/sessions.ts'
import { createLogger } from '../telemetry/log.ts'
import { createMetrics } from '../telemetry/metrics.ts'
import { buildAgent, buildSession, buildWarmSandbox, buildWebhook } from '../test/builders.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { insertTestDelivery } from '../db/webhook-deliveries.ts'
import type { ActivityDeps } from './deps.ts'
import { janitorActivities } from './janitor.ts'

let database: TestDatabase
/** What there is where sandboxes live, by name. */
const listed = new Map<string, ListedSandbox>()
/** Ids of the sandboxes whose supervisors were asked. */
const askedForUsage: string[] = []

beforeAll(async () => {
  database = await createTestDatabase()
})
afterAll(async () => database[Symbol.asyncDispose]())

const mark = (name: string, sessionId: string | null): void =>
  void listed.set(name, { ...listed.get(name)!, isMarked: true, sessionId })

/** A sandbox in use for five minutes, which the place where it lives does not know. */
const claimed = async (over: Partial<ListedSandbox> = {}): Promise<SandboxRow & { session_id: string }> => {
  const { sql } = database.db
  const agent = await buildAgent(sql)
  const claim = { templateHash: agent.id, poolSize: 9, recentAgentHours: 24 }
  await buildWarmSandbox(sql, agent.id, claim)
  const { session, sandbox } = await buildSession(sql, agent.id, { claim })
  const { id: sandboxId, name } = sandbox!
  await sql.query("update sandbox set claimed_at = claimed_at - interval '5 minutes' where id = $1", [sandboxId])
  const unmarked = { alive: true, createdAt: new Date(), isMarked: false, sessionId: null, ours: true }
  listed.set(name, { name, sandboxId, agentId: agent.id, ...unmarked, ...over })
  return { ...sandbox!, session_id: session.id }
}

const sweep = (markClaimed: SandboxDriver['markClaimed']): Promise<Repairs> => {
  const driver: Partial<SandboxDriver> = {
    markClaimed,
    markReady: markClaimed && (async (name) => mark(name, null)),
    list: async () => [...listed.values()],
    inspect: async (name) => ({ exists: true, alive: listed.get(name)?.alive === true }),
    lossOf: async () => ({ code: 'sandbox_lost', message: 'gone', evidence: { exists: false } }),
    remove: async (name) => void listed.delete(name),
  }
  const log = createLogger({ level: 'silent', name: 'test' })
  const config = {
    pool: { recentAgentHours: 24 },
    checkpoint: { retentionMs: 0 },
    webhooks: { retentionMs: 30 * 86_400_000 },
  }
  const checkpoints = { of: () => null }
  const parts = {
    sql: database.db.sql,
    checkpoints,
    driver,
    log,
    metrics: createMetrics(),
    config,
    outbox: { kick() {} },
    supervisor: {
      async health({ id }: SandboxRow) {
        askedForUsage.push(id)
        const usage_outside_turns = { input_tokens: 9, output_tokens: 3, cached_tokens: 0, requests: 2, cost_usd: 0.5 }
        return { usage_outside_turns, model_refusal: null }
      },
    },
  }
  const activities = janitorActivities(parts as object as ActivityDeps)
  return new MockActivityEnvironment().run(() => activities.sweep())
}
const sweepMarking = (): Promise<Repairs> => sweep(async (name, sessionId) => mark(name, sessionId))

test('a sandbox in use whose place does not say so is marked for its session, once', async () => {
  const [unknown, mistaken] = [await claimed(), await claimed({ sessionId: 'another' })]
  expect(await sweepMarking()).toMatchObject({ sandboxes_marked: 2, errors: 0 })
  expect(listed.get(unknown.name)).toMatchObject({ sessionId: unknown.session_id })
  expect(listed.get(mistaken.name)).toMatchObject({ sessionId: mistaken.session_id })
  expect(await sweepMarking()).toMatchObject({ sandboxes_marked: 0, errors: 0 })
})

test('one in use of which not all marks say so is marked, also when its session is right', async () => {
  const sandbox = await claimed()
  listed.set(sandbox.name, { ...listed.get(sandbox.name)!, sessionId: sandbox.session_id, isMarked: false })
  expect(await sweepMarking()).toMatchObject({ sandboxes_marked: 1, errors: 0 })
  expect(listed.get(sandbox.name)).toMatchObject({ isMarked: true, sessionId: sandbox.session_id })
})

test('a warm one is marked as one that waits, once, and not as long as who started it may still do so', async () => {
  const { sql } = database.db
  const { agent_id, name } = await claimed()
  const [fresh, old] = [await buildWarmSandbox(sql, agent_id), await buildWarmSandbox(sql, agent_id)]
  await sql.query("update sandbox set ready_at = ready_at - interval '5 minutes' where id = $1", [old.id])
  for (const warm of [fresh, old]) listed.set(warm.name, { ...listed.get(name)!, name: warm.name, sandboxId: warm.id })
  expect(await sweepMarking()).toMatchObject({ sandboxes_marked: 2, errors: 0 })
  expect([fresh, old].map((warm) => listed.get(warm.name))).toMatchObject([{ isMarked: false }, { isMarked: true }])
  expect(await sweepMarking()).toMatchObject({ sandboxes_marked: 0, errors: 0 })
})

test('what terminals have used is added to their sessions; sandboxes with turns are not asked', async () => {
  const { sql } = database.db
  const [typed, talked] = [await claimed(), await claimed()]
  for (const [{ session_id: sessionId }, harnessSessionId] of [
    [typed, 'tty'],
    [talked, 'ses'],
  ] as const)
    await sessionReady(sql, { sessionId, attempt: 1, harnessSessionId, phases: {} })
  askedForUsage.length = 0
  await sweepMarking()
  expect(askedForUsage).toEqual([typed.id])
  expect(await getSession(sql, typed.session_id)).toMatchObject({ usage: { requests: 2, cost_usd: 0.5 } })
  await sweepMarking()
  expect(await getSession(sql, typed.session_id)).toMatchObject({ usage: { requests: 2, cost_usd: 0.5 } })
})

test('one that was claimed or became warm a moment ago is left to its worker; a dead one needs no mark', async () => {
  const { sql } = database.db
  const [fresh, dead] = [await claimed(), await claimed({ alive: false })]
  await sql.query('update sandbox set claimed_at = now() where id = $1', [fresh.id])
  const warm = await buildWarmSandbox(sql, fresh.agent_id)
  listed.set(warm.name, { ...listed.get(fresh.name)!, name: warm.name, sandboxId: warm.id })
  expect(await sweepMarking()).toMatchObject({ sandboxes_marked: 0, rows_gone: 1, errors: 0 })
  expect([fresh, dead, warm].map(({ name }) => listed.get(name)?.sessionId)).toEqual([null, null, null])
})

test('a mark that fails is an error of that sandbox, and the others are marked', async () => {
  const [refused, other] = [await claimed(), await claimed()]
  const marking = async (name: string, sessionId: string): Promise<void> => {
    if (name === refused.name) throw new Error('forbidden')
    mark(name, sessionId)
  }
  expect(await sweep(marking)).toMatchObject({ sandboxes_marked: 1, errors: 1 })
  expect(listed.get(other.name)).toMatchObject({ sessionId: other.session_id })
})

test('where nobody looks at marks, none is missing', async () => {
  await claimed()
  expect(await sweep(null)).toMatchObject({ sandboxes_marked: 0, errors: 0 })
})

/** One that no row is of, or whose row has ended. */
const unknown = async (ours: boolean | null, ended: boolean): Promise<string> => {
  const { sql } = database.db
  const agent = await buildAgent(sql)
  const made = await buildWarmSandbox(sql, agent.id)
  if (ended) await sql.query("update sandbox set state = 'gone' where id = $1", [made.id])
  const { id: sandboxId, name } = ended ? made : { id: randomUUID(), name: `lap-${randomUUID()}` }
  const createdAt = new Date(Date.now() - 300_000)
  listed.set(name, {
    name,
    sandboxId,
    agentId: agent.id,
    alive: true,
    createdAt,
    isMarked: true,
    sessionId: null,
    ours,
  })
  return name
}

test('what nobody here knows is removed if this installation made it, and left to another one that did', async () => {
  const [own, other] = [await unknown(true, false), await unknown(false, false)]
  expect(await sweep(null)).toMatchObject({ objects_removed: 1, errors: 0 })
  expect([listed.has(own), listed.has(other)]).toEqual([false, true])
})

test('where it is not written down who made it, it is removed if there was a row for it', async () => {
  const [own, strange] = [await unknown(null, true), await unknown(null, false)]
  expect(await sweep(null)).toMatchObject({ objects_removed: 1, errors: 0 })
  expect([listed.has(own), listed.has(strange)]).toEqual([false, true])
})

/** A delivery as it was some time ago. */
const delivery = async (state: string, ago: string): Promise<string> => {
  const { sql } = database.db
  const { id } = await buildWebhook(sql)
  const made = await insertTestDelivery(sql, id)
  await sql.query(
    `update webhook_delivery set status = $2, next_attempt_at = case $2 when 'pending' then now() - $3::interval end,
       finished_at = case $2 when 'pending' then null else now() - $3::interval end where id = $1`,
    [made.id, state, ago],
  )
  await sql.query('delete from outbox where subject = $1', [made.id])
  return made.id
}
const asked = async (id: string): Promise<number> =>
  (await database.db.sql.query("select from outbox where kind = 'deliver_webhook' and subject = $1", [id])).length

test('a delivery whose try is long due is asked for; one that is due just now, or later, is left to its workflow', async () => {
  const [lost, due, later] = [
    await delivery('pending', '5 minutes'),
    await delivery('pending', '5 seconds'),
    await delivery('pending', '-1 hour'),
  ]
  expect(await sweep(null)).toMatchObject({ deliveries_started: 1, errors: 0 })
  expect([await asked(lost), await asked(due), await asked(later)]).toEqual([1, 0, 0])
})

test('what was delivered or given up is forgotten after its time, and what waits never', async () => {
  const { sql } = database.db
  const [old, recent, waiting] = [
    await delivery('delivered', '31 days'),
    await delivery('failed', '29 days'),
    await delivery('pending', '31 days'),
  ]
  expect(await sweep(null)).toMatchObject({ errors: 0 })
  const left = await sql.query<{ id: string }>('select id from webhook_delivery')
  const ids = left.map(({ id }) => id)
  expect(ids).not.toContain(old)
  expect(ids).toEqual(expect.arrayContaining([recent, waiting]))
})
