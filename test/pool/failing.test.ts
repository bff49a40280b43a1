import { execFile } from 'node:child_process'
import { rename } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from '@jest/globals'
import { poolBackoffFirstMs, poolBreakerFailures } from '../../domain/limits.ts'
import type { Stack } from '../faults/stack.ts'
import { until } from '../until.ts'
import { withStack } from '../faults/with-stack.ts'
import { openSession, reaches } from '../faults/world.ts'
import {
  claimsOf,
  detailsOf,
  ownAgent,
  pokePool,
  poolOf,
  poolSettles,
  type PoolState,
  stateOf,
  useOnce,
} from './world.ts'

/** A pool of two, and an agent whose repository is not there. Waits are cut short in the database; their length is tested with the pure function. */
let stack: Stack
let agent: string
let repository: string
withStack({ pool: 2 }, async (started) => {
  stack = started
  repository = path.join(stack.dir, 'moved')
  agent = await ownAgent(stack, 'failing', { repo_url: `file://${repository}` })
})

const startsOf = (agentId: string): Promise<{ state: string; failure_code: string | null }[]> =>
  stack.sql("select state, failure_code from sandbox where agent_id = $1 and purpose = 'pool'", [agentId])

/** The wait is over now. */
const endBackoff = async (agentId: string): Promise<void> => {
  await stack.sql('update pool_state set backoff_until = now() where agent_id = $1', [agentId])
  await pokePool(stack, agentId)
}

const failures = (agentId: string, atLeast: number): Promise<PoolState> =>
  until(`${atLeast} failures`, 60_000, async () => {
    const state = await stateOf(stack, agentId)
    // All that was started has ended, and the pool has looked at it.
    const looked = state !== null && state.decision === 'back off' && (await poolOf(stack, agentId)).length === 0
    return looked && state.failures >= atLeast ? state : null
  })

test('a session of a template that cannot start fails with the reason, and its pool backs off', async () => {
  const session = await openSession(stack, agent)
  await reaches(stack, session.id, 'failed', 30_000)
  const state = await failures(agent, 1)
  expect(state).toMatchObject({ share: 0, breaker_open: false, breaker_reason: null })
  // Two were started at once, before either had failed.
  expect(state.failures).toBeLessThanOrEqual(2)
  expect(state.reason).toMatch(/^\d failed starts? in a row, waiting until /)
  const [lately] = await stack.sql<{ ms: number }>(
    'select extract(epoch from backoff_until - last_failure_at) * 1000 ms from pool_state where agent_id = $1',
    [agent],
  )
  expect(Number(lately?.ms)).toBeGreaterThanOrEqual(poolBackoffFirstMs / 2)
})

test('while it backs off nothing is started, and a session that comes says why it is cold', async () => {
  await stack.sql("update pool_state set backoff_until = now() + interval '5 minutes' where agent_id = $1", [agent])
  const before = (await startsOf(agent)).length
  const session = await openSession(stack, agent)
  expect(await claimsOf(stack, session.id)).toMatchObject([{ outcome: 'miss_backoff' }])
  await reaches(stack, session.id, 'failed', 30_000)
  expect((await startsOf(agent)).length).toBe(before)
  expect(await detailsOf(stack, `pool/${agent}`)).toContain('| Decision | back off |')
})

test('after a failure one start at a time follows each wait, and the waits grow', async () => {
  const { failures: before } = (await stateOf(stack, agent))!
  const starts = (await startsOf(agent)).length
  await endBackoff(agent)
  const state = await failures(agent, before + 1)
  expect(state.failures).toBe(before + 1)
  expect((await startsOf(agent)).length).toBe(starts + 1)
  const [lately] = await stack.sql<{ ms: number }>(
    'select extract(epoch from backoff_until - last_failure_at) * 1000 ms from pool_state where agent_id = $1',
    [agent],
  )
  expect(Number(lately?.ms)).toBeGreaterThanOrEqual((poolBackoffFirstMs * 2 ** before) / 2)
})

test('another agent gets the whole budget meanwhile', async () => {
  const healthy = await ownAgent(stack, 'healthy')
  await useOnce(stack, healthy)
  await poolSettles(stack, healthy, 2)
  expect(await stateOf(stack, healthy)).toMatchObject({ share: 2, failures: 0 })
  await stack.http('DELETE', `/agents/${healthy}`)
  await poolSettles(stack, healthy, 0)
})

test('after five failures in a row the breaker opens, with the reason, and lets one probe pass at a time', async () => {
  for (let known = (await stateOf(stack, agent))!.failures; known < poolBreakerFailures; known++) {
    await endBackoff(agent)
    await failures(agent, known + 1)
  }
  const open = (await stateOf(stack, agent))!
  expect(open).toMatchObject({ failures: poolBreakerFailures, breaker_open: true })
  expect(open.breaker_reason).toMatch(/^clone_failed: .*moved/s)
  expect(open.reason).toContain('clone_failed')
  const starts = (await startsOf(agent)).length
  await endBackoff(agent)
  await failures(agent, poolBreakerFailures + 1)
  const probes = await startsOf(agent)
  expect(probes.length).toBe(starts + 1)
  expect(new Set(probes.map(({ failure_code }) => failure_code))).toEqual(new Set(['clone_failed']))
}, 90_000)

test('what failed to start leaves nothing behind', async () => {
  await until('all are gone', 30_000, async () => (await startsOf(agent)).every(({ state }) => state === 'gone'))
  expect(stack.sandboxProcesses()).toEqual([])
})

test('a good start closes the breaker, and the pool fills', async () => {
  const draft = `${repository}.draft`
  await promisify(execFile)('git', ['clone', '-q', path.join(stack.dir, 'repository'), draft])
  await rename(draft, repository)
  await endBackoff(agent)
  await poolSettles(stack, agent, 2)
  expect(await stateOf(stack, agent)).toMatchObject({
    failures: 0,
    backoff_until: null,
    breaker_open: false,
    breaker_reason: null,
    share: 2,
  })
  const session = await openSession(stack, agent)
  expect(session).toMatchObject({ status: 'ready', spawn_mode: 'warm' })
  expect(await claimsOf(stack, session.id)).toMatchObject([{ outcome: 'hit' }])
  await stack.http('DELETE', `/sessions/${session.id}`)
})

test('what is warm stays and serves while new ones of its template fail', async () => {
  await poolSettles(stack, agent, 2)
  await rename(repository, `${repository}.away`)
  const first = await openSession(stack, agent)
  expect(first).toMatchObject({ status: 'ready', spawn_mode: 'warm' })
  await until('a failure', 30_000, async () => ((await stateOf(stack, agent))?.failures ?? 0) >= 1)
  expect((await poolOf(stack, agent)).map(({ state }) => state)).toEqual(['warm'])
  const second = await openSession(stack, agent)
  expect(second).toMatchObject({ status: 'ready', spawn_mode: 'warm' })
  for (const { id } of [first, second]) await stack.http('DELETE', `/sessions/${id}`)
})

test('a change of the template is tried at once, whatever the wait was', async () => {
  await stack.sql(
    "update pool_state set failures = 6, breaker_open = true, backoff_until = now() + interval '9 minutes' where agent_id = $1",
    [agent],
  )
  const { status } = await stack.http('PATCH', `/agents/${agent}`, { repo_url: `file://${repository}.away` })
  expect(status).toBe(200)
  await poolSettles(stack, agent, 2)
  expect(await stateOf(stack, agent)).toMatchObject({ failures: 0, breaker_open: false })
})

test('a session that starts cold shows that the template starts, and ends the wait', async () => {
  await rename(`${repository}.away`, repository)
  const other = await ownAgent(stack, 'recovering', { repo_url: `file://${repository}.away` })
  await reaches(stack, (await openSession(stack, other)).id, 'failed', 30_000)
  await failures(other, 1)
  await stack.sql("update pool_state set backoff_until = now() + interval '9 minutes' where agent_id = $1", [other])
  await rename(repository, `${repository}.away`)
  await openSession(stack, other, { wait: true })
  await until('its pool has a warm one', 60_000, async () =>
    (await poolOf(stack, other)).some(({ state }) => state === 'warm'),
  )
})
