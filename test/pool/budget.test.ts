import { expect, test } from '@jest/globals'
import type { Stack } from '../faults/stack.ts'
import { until } from '../until.ts'
import { withStack } from '../faults/with-stack.ts'
import { openSession, workflowStatus } from '../faults/world.ts'
import {
  claimsOf, detailsOf, ownAgent, poolOf, poolSettles, stateOf, useOnce, watchLimits, warmOf, withTemporal,
} from './world.ts' // prettier-ignore

/** One budget of four, at most two being made at a time. The tests go on where the one before ended. */
let stack: Stack
let mostEver: () => Promise<{ held: number; starting: number }>
let busy: string
let twin: string
withStack({ pool: 4, env: { WARM_POOL_MAX_PROVISIONING: '2' } }, async (started) => {
  stack = started
  mostEver = await watchLimits(stack)
  busy = await ownAgent(stack, 'busy')
})

test('an agent that nobody uses has no pool', async () => {
  expect(await poolOf(stack, busy)).toEqual([])
  expect(await workflowStatus(stack, `pool/${busy}`)).toBeNull()
})

test('the first session of a dormant agent makes it eligible at once', async () => {
  const session = await openSession(stack, busy, { wait: true })
  expect(session).toMatchObject({ status: 'ready', spawn_mode: 'cold' })
  expect(await claimsOf(stack, session.id)).toMatchObject([{ outcome: 'miss_dormant', sandbox_id: null }])
  const [lag] = await stack.sql<{ ms: number }>(
    `select extract(epoch from min(b.created_at) - s.created_at) * 1000 ms from sandbox b, session s
     where b.purpose = 'pool' and s.id = $1 group by s.created_at`,
    [session.id],
  )
  expect(Number(lag?.ms)).toBeLessThan(10_000)
})

test('one busy agent alone gets the whole budget', async () => {
  await poolSettles(stack, busy, 4)
  expect(await stateOf(stack, busy)).toMatchObject({ share: 4, want: 0, failures: 0 })
})

test('a claim is a hit, its reply is ready, and what it took is made up for at once', async () => {
  const session = await openSession(stack, busy)
  expect(session).toMatchObject({ status: 'ready', spawn_mode: 'warm' })
  const [claim] = await claimsOf(stack, session.id)
  expect(claim).toMatchObject({ outcome: 'hit', attempt: 1 })
  await poolSettles(stack, busy, 4)
  const [refill] = await stack.sql<{ ms: number }>(
    `select extract(epoch from min(b.created_at) - c.claimed_at) * 1000 ms from sandbox b, sandbox c
     where b.purpose = 'pool' and c.id = $1 and b.created_at > c.claimed_at group by c.claimed_at`,
    [claim?.sandbox_id],
  )
  expect(Number(refill?.ms)).toBeLessThan(5_000)
})

test('an agent of the same template is served from another one’s pool, which makes it up', async () => {
  twin = await ownAgent(stack, 'busy', { name: 'twin' })
  const session = await openSession(stack, twin)
  expect(session).toMatchObject({ status: 'ready', spawn_mode: 'warm' })
  const [claim] = await claimsOf(stack, session.id)
  expect(claim).toMatchObject({ outcome: 'hit_shared', agent_id: twin })
  const [sandbox] = await stack.sql<{ agent_id: string; claimed_at: Date }>('select * from sandbox where id = $1', [
    claim?.sandbox_id,
  ])
  expect(sandbox?.agent_id).toBe(busy)
  // Both pools hear of it: the one that lost a sandbox, and that of the agent which is eligible from now on.
  for (const agent of [busy, twin]) {
    const decided = await until(`pool ${agent} looks again`, 20_000, async () => {
      const state = await stateOf(stack, agent)
      return state !== null && state.decided_at > sandbox!.claimed_at ? state : null
    })
    expect(decided.decided_at.getTime() - sandbox!.claimed_at.getTime()).toBeLessThan(10_000)
  }
  await until('the budget is used up', 60_000, async () => {
    const [ofBusy, ofTwin] = [await warmOf(stack, busy), await warmOf(stack, twin)]
    return ofBusy.length + ofTwin.length === 4 && ofTwin.length > 0
  })
})

test('a deleted agent drains, its pool ends, and its share goes to the others at once', async () => {
  const { status } = await stack.http('DELETE', `/agents/${twin}`)
  expect(status).toBe(204)
  await until('the pool of the deleted agent has ended', 30_000, async () => {
    return (await workflowStatus(stack, `pool/${twin}`)) === 'COMPLETED' && (await poolOf(stack, twin)).length === 0
  })
  expect(await stateOf(stack, twin)).toMatchObject({ share: 0, reason: 'the agent was deleted' })
  await poolSettles(stack, busy, 4)
  const [[deleted], [made]] = await Promise.all([
    stack.sql<{ at: Date }>('select deleted_at at from agent where id = $1', [twin]),
    stack.sql<{ at: Date }>("select max(created_at) at from sandbox where agent_id = $1 and state = 'warm'", [busy]),
  ])
  expect(made!.at.getTime() - deleted!.at.getTime()).toBeLessThan(20_000)
})

test('two agents in use share the budget, and each has its share warm', async () => {
  const other = await ownAgent(stack, 'other')
  const opened = await useOnce(stack, other)
  expect(await claimsOf(stack, opened.id)).toMatchObject([{ outcome: 'miss_dormant' }])
  await until('both pools are what their share is, at least one each', 60_000, async () => {
    const pools = await Promise.all(
      [busy, other].map(async (agent) => ({
        share: (await stateOf(stack, agent))?.share ?? 0,
        warm: (await warmOf(stack, agent)).length,
        all: (await poolOf(stack, agent)).length,
      })),
    )
    const settled = pools.every(({ share, warm, all }) => share > 0 && share === warm && share === all)
    return settled && pools.reduce((sum, { share }) => sum + share, 0) === 4
  })
})

test('a burst empties the pool, misses say so, and the pool comes back', async () => {
  const sessions = await Promise.all(Array.from({ length: 6 }, () => openSession(stack, busy)))
  const outcomes = await Promise.all(sessions.map(async ({ id }) => (await claimsOf(stack, id))[0]?.outcome))
  const hits = outcomes.filter((outcome) => outcome === 'hit').length
  expect(hits).toBeGreaterThanOrEqual(1)
  expect(outcomes.filter((outcome) => outcome !== 'hit')).toEqual(Array.from({ length: 6 - hits }, () => 'miss_empty'))
  const sandboxes = new Set(
    (await Promise.all(sessions.map(({ id }) => claimsOf(stack, id))))
      .flat()
      .flatMap((claim) => claim.sandbox_id ?? []),
  )
  expect(sandboxes.size).toBeGreaterThanOrEqual(hits)
  for (const { id } of sessions) await stack.http('DELETE', `/sessions/${id}`)
  await until('the pools are full again', 60_000, async () => {
    const [counts] = await stack.sql<{ warm: number; all: number }>(
      `select count(*) filter (where state = 'warm' and not retiring)::int warm, count(*)::int "all" from sandbox
       where purpose = 'pool' and state in ('provisioning', 'warm')`,
    )
    return counts?.warm === 4 && counts.all === 4
  })
}, 90_000)

test('a pool is found in Temporal by its agent, and its page says what it decided and why', async () => {
  const found = await until('visibility knows it', 20_000, () =>
    withTemporal(stack, async (client) => {
      const query = `WorkflowType = 'pool' AND LapAgentId = '${busy}' AND ExecutionStatus = 'Running'`
      for await (const workflow of client.workflow.list({ query })) return workflow
      return null
    }),
  )
  expect(found.workflowId).toBe(`pool/${busy}`)
  const page = await detailsOf(stack, `pool/${busy}`)
  const state = await stateOf(stack, busy)
  expect(page).toContain(`| Decision | ${state?.decision} |`)
  expect(page).toContain(`| Reason | share ${state?.share} of 4, `)
  expect(page).toContain(`| Share | ${state?.share} |`)
})

test('neither limit was ever exceeded', async () => {
  expect(await mostEver()).toEqual({ held: 4, starting: 2 })
})
