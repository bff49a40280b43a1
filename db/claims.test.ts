import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { buildAgent, buildSession, buildWarmSandbox, newSession, reservation, TEMPLATE } from '../test/builders.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { assignSandbox, claimForSession, claimWasDead, createSession } from './claims.ts'
import { createDatabase } from './database.ts'
import type { AgentRow } from './entities/agent.ts'
import { recordPoolFailure } from './pool.ts'
import { getSandbox, reservePoolSandbox, retireSandbox, sandboxBooted, sandboxFailed } from './sandboxes.ts'
import { endSession } from './session-end.ts'
import { getSession, sessionReady } from './sessions.ts'
import type { Sql } from './sql.ts'

let database: TestDatabase
let sql: Sql
let agent: AgentRow
const claim = { templateHash: TEMPLATE, poolSize: 10, recentAgentHours: 24 }

beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  await sql.query("update sandbox set state = 'gone'")
  agent = await buildAgent(sql)
})

test('a warm sandbox goes to one session only, whoever asks at the same time', async () => {
  await using other = await createDatabase({ url: database.url, poolMax: 10 })
  for (let i = 0; i < 20; i++) await buildWarmSandbox(sql, agent.id)
  const made = await Promise.all(
    Array.from({ length: 200 }, (_, i) => buildSession(i % 2 === 0 ? sql : other.sql, agent.id)),
  )
  const given = made.flatMap(({ sandbox }) => (sandbox === null ? [] : [sandbox.id]))
  expect(given).toHaveLength(20)
  expect(new Set(given).size).toBe(20)
  for (const { session, sandbox } of made) expect(session.sandbox_id).toBe(sandbox?.id ?? null)
})

test('an agent is given its own sandbox before one of another agent with the same template', async () => {
  const other = await buildAgent(sql)
  const theirs = await buildWarmSandbox(sql, other.id)
  const own = await buildWarmSandbox(sql, agent.id)
  const first = await buildSession(sql, agent.id)
  expect([first.outcome, first.sandbox?.id]).toEqual(['hit', own.id])
  const second = await buildSession(sql, agent.id)
  expect([second.outcome, second.sandbox?.id]).toEqual(['hit_shared', theirs.id])
})

test('what is claimed carries a new epoch, its session and the time, and the session says warm', async () => {
  const warm = await buildWarmSandbox(sql, agent.id, { endpoint: 'http://127.0.0.1:1234' })
  const { session, sandbox } = await buildSession(sql, agent.id)
  expect(session).toMatchObject({ status: 'creating', spawn_mode: 'warm', attempt: 1, bound_attempt: 0, last_seq: 1 })
  expect(sandbox).toMatchObject({
    id: warm.id,
    state: 'claimed',
    epoch: warm.epoch + 1,
    endpoint: 'http://127.0.0.1:1234',
  })
  expect(sandbox!.claimed_at).toBeInstanceOf(Date)
  expect(await getSandbox(sql, warm.id)).toMatchObject({ session_id: session.id, state: 'claimed' })
})

test('the start of the workflow and the poke of the pool are written with the session', async () => {
  const { session } = await buildSession(sql, agent.id, {
    initialTurn: { id: randomUUID(), parts: [{ type: 'text', text: 'hi' }] },
  })
  const kinds = await sql.query<{ kind: string }>('select kind from outbox where subject in ($1, $2) order by kind', [
    session.id,
    agent.id,
  ])
  expect(kinds.map(({ kind }) => kind)).toEqual(['poke_pool', 'start_session'])
  const log = await sql.query('select seq, type from event where session_id = $1 order by seq', [session.id])
  expect(log).toEqual([
    { seq: 1, type: 'session.created' },
    { seq: 2, type: 'turn.queued' },
  ])
  expect((await getSession(sql, session.id))!.last_seq).toBe(2)
})

test.each<[string, () => Promise<Partial<typeof claim>>]>([
  ['miss_disabled', async () => ({ poolSize: 0 })],
  ['miss_dormant', async () => ({})],
  [
    'miss_empty',
    async () => (await sql.query('update agent set last_session_at = now() where id = $1', [agent.id]), {}),
  ],
  ['miss_stale', async () => (await buildWarmSandbox(sql, agent.id, { templateHash: 'older' }), {})],
  [
    'miss_backoff',
    async () => (
      await recordPoolFailure(sql, agent.id, { reason: 'no image', backoffMs: () => 60_000, breakerFailures: 5 }),
      {}
    ),
  ],
])('a miss says why: %s', async (outcome, arrange) => {
  const over = await arrange()
  const made = await buildSession(sql, agent.id, { claim: { ...claim, ...over } })
  expect([made.outcome, made.sandbox, made.session.spawn_mode]).toEqual([outcome, null, 'cold'])
  expect(await sql.query('select outcome, sandbox_id from claim where session_id = $1', [made.session.id])).toEqual([
    { outcome, sandbox_id: null },
  ])
})

test('a repeated create gives the same session, and another request under its key is a conflict', async () => {
  const key = randomUUID()
  await buildWarmSandbox(sql, agent.id)
  const first = await buildSession(sql, agent.id, { idempotencyKey: key, bodyHash: 'one' })
  await buildWarmSandbox(sql, agent.id)
  const again = await createSession(sql, newSession(agent.id, { idempotencyKey: key, bodyHash: 'one' }))
  expect(again.existing && again.session.id).toBe(first.session.id)
  await expect(
    createSession(sql, newSession(agent.id, { idempotencyKey: key, bodyHash: 'two' })),
  ).rejects.toMatchObject({ code: 'conflict' })
  const claimed = await sql.query("select id from sandbox where agent_id = $1 and state = 'claimed'", [agent.id])
  expect(claimed).toHaveLength(1)
})

test('twenty equal creates at once make one session and use one sandbox', async () => {
  const key = randomUUID()
  for (let i = 0; i < 5; i++) await buildWarmSandbox(sql, agent.id)
  const all = await Promise.all(
    Array.from({ length: 20 }, () => createSession(sql, newSession(agent.id, { idempotencyKey: key, bodyHash: 'x' }))),
  )
  expect(new Set(all.map(({ session }) => session.id)).size).toBe(1)
  expect(await sql.query("select id from sandbox where agent_id = $1 and state = 'claimed'", [agent.id])).toHaveLength(
    1,
  )
})

test('a session that has a sandbox is not given a second one', async () => {
  const warm = await buildWarmSandbox(sql, agent.id)
  await buildWarmSandbox(sql, agent.id)
  const { session } = await buildSession(sql, agent.id)
  const again = await claimForSession(sql, session.id, claim)
  expect([again?.sandbox?.id, again?.session.attempt]).toEqual([warm.id, 1])
  const made = reservation(agent.id)
  expect((await assignSandbox(sql, session.id, made))?.sandbox.id).toBe(warm.id)
})

test('a session whose sandbox was lost gets the next one as its next attempt', async () => {
  const first = await buildWarmSandbox(sql, agent.id)
  const { session, sandbox } = await buildSession(sql, agent.id)
  await sessionReady(sql, { sessionId: session.id, attempt: 1, harnessSessionId: 'ses_1', phases: { ready: 5 } })
  await sandboxFailed(
    sql,
    first.id,
    { code: 'sandbox_lost', message: 'gone', evidence: { exists: false } },
    sandbox!.epoch,
  )
  const next = await buildWarmSandbox(sql, agent.id)
  const moved = await claimForSession(sql, session.id, claim)
  expect([moved?.sandbox?.id, moved?.session.attempt, moved?.session.status]).toEqual([next.id, 2, 'ready'])
  const bound = await sessionReady(sql, {
    sessionId: session.id,
    attempt: 2,
    harnessSessionId: 'ses_2',
    phases: {},
    told: { reason: 'sandbox_lost' },
  })
  expect(bound).toMatchObject({ status: 'ready', bound_attempt: 2, harness_session_id: 'ses_2' })
  const types = await sql.query<{ type: string }>('select type from event where session_id = $1 order by seq', [
    session.id,
  ])
  expect(types.map(({ type }) => type)).toEqual(['session.created', 'session.ready', 'sandbox_moved'])
})

test('becoming ready twice is once, and an older attempt changes nothing', async () => {
  await buildWarmSandbox(sql, agent.id)
  const { session } = await buildSession(sql, agent.id)
  const ready = { sessionId: session.id, attempt: 1, harnessSessionId: 'ses_1', phases: { ready: 5 } }
  const twice = await Promise.all([sessionReady(sql, ready), sessionReady(sql, ready)])
  expect(twice.map((row) => row?.status)).toEqual(['ready', 'ready'])
  expect(
    await sql.query("select seq from event where session_id = $1 and type = 'session.ready'", [session.id]),
  ).toHaveLength(1)
  expect(await sessionReady(sql, { ...ready, attempt: 0 })).toBeNull()
})

test('a session deleted while it is bound stays deleted, and its sandbox goes', async () => {
  const warm = await buildWarmSandbox(sql, agent.id)
  const { session } = await buildSession(sql, agent.id)
  const ended = await endSession(sql, session.id, { status: 'dead', endReason: 'deleted' })
  expect(ended).toMatchObject({ changed: true, sandbox: { id: warm.id, state: 'ending' } })
  expect(
    await sessionReady(sql, { sessionId: session.id, attempt: 1, harnessSessionId: 'ses_1', phases: {} }),
  ).toBeNull()
  expect(await getSession(sql, session.id)).toMatchObject({ status: 'dead', end_reason: 'deleted' })
  expect(await claimForSession(sql, session.id, claim)).toBeNull()
})

test('an ended session stays as it ended', async () => {
  const { session } = await buildSession(sql, agent.id)
  await endSession(sql, session.id, { status: 'failed', code: 'clone_failed', reason: 'no such branch' })
  const again = await endSession(sql, session.id, { status: 'dead', endReason: 'deleted' })
  expect(again?.changed).toBe(false)
  expect(await getSession(sql, session.id)).toMatchObject({
    status: 'failed',
    end_reason: 'failed:clone_failed',
    failure_reason: 'no such branch',
  })
})

test('a cold sandbox whose session was deleted meanwhile is handed to nobody', async () => {
  const { session } = await buildSession(sql, agent.id)
  const assigned = await assignSandbox(sql, session.id, reservation(agent.id))
  await endSession(sql, session.id, { status: 'dead', endReason: 'deleted' })
  expect(await sandboxBooted(sql, assigned!.sandbox.id, 'http://127.0.0.1:1')).toBeNull()
  expect(await getSandbox(sql, assigned!.sandbox.id)).toMatchObject({ state: 'ending' })
})

test('the global limits hold for any number of concurrent reservations', async () => {
  const limits = { poolSize: 12, maxProvisioning: 5 }
  const rows = await Promise.all(
    Array.from({ length: 60 }, () => reservePoolSandbox(sql, reservation(agent.id), limits)),
  )
  expect(rows.filter((row) => row !== null)).toHaveLength(5)
})

test('a replacement takes the place of the one it replaces, which stays claimable until it is retired', async () => {
  const old = await buildWarmSandbox(sql, agent.id)
  const limits = { poolSize: 1, maxProvisioning: 1 }
  expect(await reservePoolSandbox(sql, reservation(agent.id), limits)).toBeNull()
  const next = await reservePoolSandbox(sql, { ...reservation(agent.id), replaces: old.id }, limits)
  expect(next).not.toBeNull()
  expect(await reservePoolSandbox(sql, reservation(agent.id), { poolSize: 1, maxProvisioning: 9 })).toBeNull()
  const { sandbox } = await buildSession(sql, agent.id)
  expect(sandbox?.id).toBe(old.id)
  expect(await retireSandbox(sql, old.id)).toBeNull()
})

test('a sandbox that two found dead costs the session nothing that it has got since', async () => {
  await buildWarmSandbox(sql, agent.id)
  const { session, sandbox: dead } = await buildSession(sql, agent.id)
  await sandboxFailed(sql, dead!.id, { code: 'sandbox_lost', message: 'gone', evidence: null })
  const next = await buildWarmSandbox(sql, agent.id)
  expect((await claimForSession(sql, session.id, claim))?.sandbox?.id).toBe(next.id)
  const late = { sessionId: session.id, sandboxId: dead!.id, retried: false }
  expect(await claimWasDead(sql, late)).toBeNull()
  expect(await getSession(sql, session.id)).toMatchObject({
    spawn_mode: 'warm',
    claim_outcome: 'hit',
    sandbox_id: next.id,
  })
  expect(await sql.query('select outcome from claim where session_id = $1 order by attempt', [session.id])).toEqual([
    { outcome: 'miss_dead' },
    { outcome: 'hit' },
  ])
})

test('a session whose warm sandbox was dead is cold, also when a cold one was assigned meanwhile', async () => {
  await buildWarmSandbox(sql, agent.id)
  const { session, sandbox: dead } = await buildSession(sql, agent.id)
  await sandboxFailed(sql, dead!.id, { code: 'sandbox_lost', message: 'gone', evidence: null })
  const { id, name } = reservation(agent.id)
  await assignSandbox(sql, session.id, {
    id,
    name,
    templateHash: TEMPLATE,
    harnessId: 'light',
    image: 'i',
    driver: 'local',
  })
  const cold = await claimWasDead(sql, { sessionId: session.id, sandboxId: dead!.id, retried: false })
  expect(cold).toMatchObject({ spawn_mode: 'cold', claim_outcome: 'miss_dead', sandbox_id: id })
})
