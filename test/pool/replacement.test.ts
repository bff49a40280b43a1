import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { expect, test } from '@jest/globals'
import type { Stack } from '../faults/stack.ts'
import { until } from '../until.ts'
import { withStack } from '../faults/with-stack.ts'
import { openSession, reaches, sandboxesOf, supervisorPid } from '../faults/world.ts'
import {
  claimsOf,
  ownAgent,
  pokePool,
  poolOf,
  poolSettles,
  type PoolSandbox,
  stateOf,
  useOnce,
  warmOf,
} from './world.ts'

/** A pool of two for one agent. Time passes by moving what the database says of the past. */
let stack: Stack
let agent: string
withStack({ pool: 2, env: { WARM_POOL_TTL_MINUTES: '1' } }, async (started) => {
  stack = started
  agent = await ownAgent(stack, 'agent')
  await useOnce(stack, agent)
  await poolSettles(stack, agent, 2)
})

const idsOf = (sandboxes: { id: string }[]): string[] => sandboxes.map(({ id }) => id).toSorted()

const isGone = async ({ id, name }: PoolSandbox): Promise<boolean> => {
  const [row] = await stack.sql<PoolSandbox>('select * from sandbox where id = $1', [id])
  return row?.state === 'gone' && !existsSync(path.join(stack.sandboxDir, name))
}

/** Stops the worker where it stands, so that nobody sees what happens meanwhile but the API. */
const withoutWorker = async <T>(work: () => Promise<T>): Promise<T> => {
  const pid = stack.worker().pid()
  process.kill(pid, 'SIGSTOP')
  try {
    return await work()
  } finally {
    process.kill(pid, 'SIGCONT')
  }
}

test('warm ones past their time to live are replaced one by one, and never are there fewer than before', async () => {
  const before = await poolSettles(stack, agent, 2)
  await stack.sql("update sandbox set ready_at = ready_at - interval '1 minute' where id = any($1::uuid[])", [
    before.map(({ id }) => id),
  ])
  await pokePool(stack, agent)
  const claimable: number[] = []
  const after = await until('both are new', 60_000, async () => {
    const pool = await poolOf(stack, agent)
    claimable.push(pool.filter(({ state }) => state === 'warm').length)
    const fresh = pool.filter(({ id, state }) => state === 'warm' && !idsOf(before).includes(id))
    return fresh.length === 2 && pool.length === 2 ? fresh : null
  })
  expect(Math.min(...claimable)).toBe(2)
  expect(Math.max(...claimable)).toBeLessThanOrEqual(3)
  await until('the old ones are gone', 20_000, async () => (await Promise.all(before.map(isGone))).every(Boolean))
  // One after the other: the second replacement began when the first was there.
  const [first, second] = after.toSorted((a, b) => a.created_at.getTime() - b.created_at.getTime())
  expect(second!.created_at.getTime()).toBeGreaterThanOrEqual(first!.ready_at!.getTime())
}, 90_000)

test('one that is being replaced can be claimed until its replacement is warm', async () => {
  const before = await poolSettles(stack, agent, 2)
  // A template that takes longer to start, so that there is a moment in between.
  const { status } = await stack.http('PATCH', `/agents/${agent}`, { setup_cmd: ': agent; sleep 3' })
  expect(status).toBe(200)
  const slow = await until('two slow ones', 60_000, async () => {
    const pool = await warmOf(stack, agent)
    return pool.length === 2 && pool.every(({ id }) => !idsOf(before).includes(id)) ? pool : null
  })
  await stack.sql("update sandbox set ready_at = ready_at - interval '1 minute' where id = $1", [slow[0]!.id])
  await pokePool(stack, agent)
  await until('a replacement starts', 20_000, async () => {
    return (await poolOf(stack, agent)).some(({ id, retiring }) => id === slow[0]!.id && retiring)
  })
  const sessions = [await openSession(stack, agent), await openSession(stack, agent)]
  expect(sessions).toMatchObject([{ spawn_mode: 'warm' }, { spawn_mode: 'warm' }])
  expect(idsOf((await Promise.all(sessions.map(({ id }) => sandboxesOf(stack, id)))).flat())).toEqual(idsOf(slow))
  await poolSettles(stack, agent, 2)
  for (const { id } of sessions) await stack.http('DELETE', `/sessions/${id}`)
}, 120_000)

test('after a change of the agent its old warm ones are never claimed for it, and are replaced', async () => {
  const { body: changed } = await stack.http<{ setup_cmd: string }>('PATCH', `/agents/${agent}`, { setup_cmd: ': new' })
  expect(changed.setup_cmd).toBe(': new')
  await until('both are of the new template', 60_000, async () => {
    const pool = await poolOf(stack, agent)
    const [row] = await stack.sql<{ template_hash: string }>('select template_hash from agent where id = $1', [agent])
    return (
      pool.length === 2 &&
      pool.every(({ state, template_hash }) => state === 'warm' && template_hash === row?.template_hash)
    )
  })
}, 90_000)

test('a session that comes before the old ones are replaced starts cold, with the reason', async () => {
  const old = await poolSettles(stack, agent, 2)
  const session = await withoutWorker(async () => {
    await stack.http('PATCH', `/agents/${agent}`, { setup_cmd: ': newer' })
    return openSession(stack, agent)
  })
  expect(session).toMatchObject({ status: 'creating', spawn_mode: 'cold' })
  expect((await claimsOf(stack, session.id))[0]).toMatchObject({ outcome: 'miss_stale', attempt: 1 })
  await reaches(stack, session.id, 'ready')
  const used = await sandboxesOf(stack, session.id)
  expect(used.filter(({ id }) => idsOf(old).includes(id))).toEqual([])
  await until('the old ones are gone', 30_000, async () => (await Promise.all(old.map(isGone))).every(Boolean))
  await stack.http('DELETE', `/sessions/${session.id}`)
}, 90_000)

test('a sandbox that was ordered at the moment when its agent changed is never warm: what it holds is what its template says', async () => {
  const marks = (mark: string): string => `echo ${mark} > marker`
  const changing = await ownAgent(stack, 'changing', { setup_cmd: marks('one') })
  const after = await ownAgent(stack, 'after', { setup_cmd: marks('two') })
  const hashOf = async (id: string): Promise<string> =>
    (await stack.sql<{ template_hash: string }>('select template_hash from agent where id = $1', [id]))[0]!
      .template_hash
  const [one, two] = [await hashOf(changing), await hashOf(after)]
  // With the row of its first pool sandbox the agent changes: after the decision, before the start.
  await stack.sql(`create function change_agent() returns trigger language plpgsql as $$ begin
    update agent set setup_cmd = '${marks('two')}' where id = new.agent_id and setup_cmd = '${marks('one')}'; return null; end $$`)
  await stack.sql(`create trigger change_agent after insert on sandbox for each row
    when (new.agent_id = '${changing}' and new.purpose = 'pool') execute function change_agent()`)
  try {
    await useOnce(stack, changing)
    const [warm] = await until('a warm one', 60_000, async () => {
      const pool = await warmOf(stack, changing)
      return pool.length > 0 ? pool : null
    })
    expect(warm?.template_hash).toBe(two)
    const marker = await readFile(path.join(stack.sandboxDir, warm!.name, 'workspace', 'marker'), 'utf8')
    expect(marker).toBe('two\n')
  } finally {
    await stack.sql('drop trigger change_agent on sandbox')
  }
  const made = await stack.sql<PoolSandbox>("select * from sandbox where agent_id = $1 and purpose = 'pool'", [
    changing,
  ])
  const old = made.filter(({ template_hash }) => template_hash === one)
  expect(old.length).toBeGreaterThan(0)
  expect(old.filter(({ ready_at }) => ready_at !== null)).toEqual([])
  await until('the old ones are gone', 30_000, async () => (await Promise.all(old.map(isGone))).every(Boolean))
  for (const id of [changing, after]) await stack.http('DELETE', `/agents/${id}`)
  await poolSettles(stack, agent, 2)
}, 120_000)

test('a change that does not concern the template leaves warm ones alone', async () => {
  const before = await poolSettles(stack, agent, 2)
  await stack.http('PATCH', `/agents/${agent}`, { name: 'renamed', prompt: 'Be brief.' })
  const since = (await stateOf(stack, agent))!.decided_at
  await until('the pool has looked', 20_000, async () => (await stateOf(stack, agent))!.decided_at > since)
  expect(idsOf(await poolOf(stack, agent))).toEqual(idsOf(before))
})

test('a warm one that does not answer is discarded and the next one taken, within the same request', async () => {
  const [oldest, next] = (await poolSettles(stack, agent, 2)).toSorted(
    (a, b) => a.ready_at!.getTime() - b.ready_at!.getTime(),
  )
  const session = await withoutWorker(async () => {
    process.kill(supervisorPid(stack, oldest!.name), 'SIGKILL')
    return openSession(stack, agent)
  })
  expect(session).toMatchObject({ status: 'ready', spawn_mode: 'warm' })
  expect(await claimsOf(stack, session.id)).toMatchObject([
    { outcome: 'miss_dead', attempt: 1, sandbox_id: oldest!.id },
    { outcome: 'hit', attempt: 2, sandbox_id: next!.id },
  ])
  await until('the dead one is gone', 30_000, () => isGone(oldest!))
  await poolSettles(stack, agent, 2)
  await stack.http('DELETE', `/sessions/${session.id}`)
}, 90_000)

test('when none answers the session starts cold and says so', async () => {
  const dead = await poolSettles(stack, agent, 2)
  const session = await withoutWorker(async () => {
    for (const { name } of dead) process.kill(supervisorPid(stack, name), 'SIGKILL')
    return openSession(stack, agent)
  })
  expect(session).toMatchObject({ status: 'creating', spawn_mode: 'cold' })
  await reaches(stack, session.id, 'ready')
  const claims = await claimsOf(stack, session.id)
  expect(claims.slice(0, 2).map(({ outcome }) => outcome)).toEqual(['miss_dead', 'miss_dead'])
  await stack.http('DELETE', `/sessions/${session.id}`)
}, 90_000)

test('one that dies while it waits is replaced at once', async () => {
  const [victim] = await poolSettles(stack, agent, 2)
  process.kill(supervisorPid(stack, victim!.name), 'SIGKILL')
  await until('it is gone', 20_000, () => isGone(victim!))
  await poolSettles(stack, agent, 2, 30_000)
  const [row] = await stack.sql<{ failure_code: string; evidence: { alive?: boolean } | null }>(
    'select failure_code, evidence from sandbox where id = $1',
    [victim!.id],
  )
  expect(row).toMatchObject({ failure_code: 'sandbox_lost', evidence: { alive: false } })
  // It is no fault of the template.
  expect(await stateOf(stack, agent)).toMatchObject({ failures: 0, backoff_until: null })
}, 60_000)
