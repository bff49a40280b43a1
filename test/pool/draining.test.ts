import { expect, test } from '@jest/globals'
import type { Stack } from '../faults/stack.ts'
import { until } from '../until.ts'
import { withStack } from '../faults/with-stack.ts'
import { openSession, reaches, workflowStatus } from '../faults/world.ts'
import { claimsOf, ownAgent, pokePool, poolOf, poolSettles, stateOf, useOnce, warmOf } from './world.ts'

/** Down to nothing: out of the window, deleted, switched off; and back. */
let stack: Stack
let agent: string
withStack({ pool: 2 }, async (started) => {
  stack = started
  agent = await ownAgent(stack, 'agent')
  await useOnce(stack, agent)
  await poolSettles(stack, agent, 2)
})

const poolEnds = (agentId: string): Promise<boolean> =>
  until(`the pool of ${agentId} has ended`, 30_000, async () => {
    return (await workflowStatus(stack, `pool/${agentId}`)) === 'COMPLETED'
  })

/** Of its pool nothing is left: no row that is not gone, no process. */
const nothingIsLeft = async (agentId: string): Promise<void> => {
  const rows = await stack.sql<{ name: string; state: string }>(
    "select name, state from sandbox where agent_id = $1 and purpose = 'pool' and session_id is null",
    [agentId],
  )
  expect(rows.filter(({ state }) => state !== 'gone')).toEqual([])
  const running = stack.sandboxProcesses().filter(({ command }) => rows.some(({ name }) => command.includes(name)))
  expect(running).toEqual([])
}

const lastUsed = (agentId: string, hoursAgo: number): Promise<unknown> =>
  stack.sql('update agent set last_session_at = now() - make_interval(hours => $2::int) where id = $1', [
    agentId,
    hoursAgo,
  ])

test('an agent that nobody used within the window drains, and its pool ends', async () => {
  await lastUsed(agent, 25)
  await pokePool(stack, agent)
  await poolEnds(agent)
  expect(await stateOf(stack, agent)).toMatchObject({ share: 0, reason: 'no session within the window' })
  await nothingIsLeft(agent)
})

test('its next session says so, and brings the pool back', async () => {
  const session = await useOnce(stack, agent)
  expect(session).toMatchObject({ spawn_mode: 'cold' })
  expect(await claimsOf(stack, session.id)).toMatchObject([{ outcome: 'miss_dormant' }])
  await poolSettles(stack, agent, 2)
})

test('the most recently used agents come first when there are more agents than places', async () => {
  const [second, third] = [await ownAgent(stack, 'second'), await ownAgent(stack, 'third')]
  await useOnce(stack, second)
  await useOnce(stack, third)
  await until('the last two have one each', 60_000, async () => {
    const [a, b] = [await warmOf(stack, second), await warmOf(stack, third)]
    return a.length === 1 && b.length === 1 && (await poolOf(stack, agent)).length === 0
  })
  await poolEnds(agent)
  expect((await stateOf(stack, agent))?.reason).toBe(
    'other agents were used more recently and take the whole budget of 2',
  )
  for (const id of [second, third]) {
    expect((await stack.http('DELETE', `/agents/${id}`)).status).toBe(204)
    await poolEnds(id)
    await nothingIsLeft(id)
  }
  // What they had goes back to the one that is left, whose pool had ended.
  await poolSettles(stack, agent, 2)
}, 120_000)

test('an agent deleted while its pool starts leaves nothing', async () => {
  const brief = await ownAgent(stack, 'brief', { setup_cmd: 'sleep 1' })
  await useOnce(stack, brief)
  await until('a start', 30_000, async () => (await poolOf(stack, brief)).some(({ state }) => state === 'provisioning'))
  await stack.http('DELETE', `/agents/${brief}`)
  await poolEnds(brief)
  await nothingIsLeft(brief)
  await poolSettles(stack, agent, 2)
}, 90_000)

test('with size 0 everything drains, the pool ends, and a session says that it is switched off', async () => {
  await Promise.all([stack.api().kill('SIGTERM'), stack.worker().kill('SIGTERM')])
  const off = { WARM_POOL_SIZE: '0' }
  await Promise.all([stack.api().start(off), stack.worker().start(off)])
  // No test pokes it here: the workflow looks by itself, or the janitor asks it to.
  await until('nothing is held', 45_000, async () => (await poolOf(stack, agent)).length === 0)
  await poolEnds(agent)
  await nothingIsLeft(agent)
  expect(await stateOf(stack, agent)).toMatchObject({ share: 0, reason: 'the pool is switched off (size 0)' })
  const session = await openSession(stack, agent)
  expect(session).toMatchObject({ status: 'creating', spawn_mode: 'cold' })
  expect(await claimsOf(stack, session.id)).toMatchObject([{ outcome: 'miss_disabled' }])
  await reaches(stack, session.id, 'ready')
  expect(await poolOf(stack, agent)).toEqual([])
  await stack.http('DELETE', `/sessions/${session.id}`)
}, 120_000)

test('with a size again it fills at the next session', async () => {
  await Promise.all([stack.api().kill('SIGTERM'), stack.worker().kill('SIGTERM')])
  const on = { WARM_POOL_SIZE: '1' }
  await Promise.all([stack.api().start(on), stack.worker().start(on)])
  await useOnce(stack, agent)
  await poolSettles(stack, agent, 1)
}, 90_000)
