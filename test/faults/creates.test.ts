import { expect, test } from '@jest/globals'
import type { Stack } from './stack.ts'
import { until } from '../until.ts'
import { withStack } from './with-stack.ts'
import { createAgent, leavesNothing, poolCounts, type Session, times, warmPool } from './world.ts'

const POOL = 20
const AT_ONCE = 4
const CREATES = 200

let stack: Stack
withStack({ apis: 2, pool: POOL, env: { WARM_POOL_MAX_PROVISIONING: String(AT_ONCE) } }, async (started) => {
  stack = started
})

/** After each insert of a pool sandbox, inside its own transaction: what the limits then count. */
const watchLimits = (): Promise<object[]> =>
  stack.sql(`
    create table seen (provisioning int, held int);
    create function see() returns trigger language plpgsql as $$ begin
      insert into seen select count(*) filter (where state = 'provisioning'), count(*) filter (where not retiring)
      from sandbox where purpose = 'pool' and state in ('provisioning', 'warm'); return null; end $$;
    create trigger see after insert on sandbox for each statement execute function see()`)

test('two hundred creates at once over two APIs share no sandbox and exceed neither limit', async () => {
  await watchLimits()
  const agent = await createAgent(stack)
  await warmPool(stack, agent, POOL)

  const over = new AbortController()
  const most = { provisioning: 0, held: 0 }
  const sampling = (async () => {
    while (!over.signal.aborted) {
      const { warm, provisioning } = await poolCounts(stack)
      most.provisioning = Math.max(most.provisioning, provisioning)
      most.held = Math.max(most.held, warm + provisioning)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  })()

  const replies = await times(CREATES, (i) =>
    stack.http<Session>('POST', `/agents/${agent}/session`, { title: `${i}` }, { api: i % 2 }),
  )
  expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([200]))
  const ids = replies.map(({ body }) => body.id)
  expect(new Set(ids).size).toBe(CREATES)
  // Every warm sandbox was handed over at once, and nobody waited for a second one.
  expect(replies.filter(({ body }) => body.spawn_mode === 'warm').length).toBeGreaterThanOrEqual(POOL)
  for (const { body } of replies)
    expect(body).toMatchObject({ status: body.spawn_mode === 'warm' ? 'ready' : 'creating' })

  await until('all sessions are ready', 240_000, async () => {
    const counts = await stack.sql<{ status: string; count: number }>(
      'select status, count(*)::int from session where id = any($1) group by status',
      [ids],
    )
    const failed = counts.find(({ status }) => status === 'failed' || status === 'dead')
    if (failed !== undefined) throw new Error(`${failed.count} sessions are ${failed.status}`)
    return counts.length === 1 && counts[0]?.status === 'ready'
  })
  over.abort()
  await sampling

  const claimed = await stack.sql<{ session_id: string; id: string }>(
    'select session_id, id from sandbox where session_id = any($1)',
    [ids],
  )
  expect(claimed.length).toBe(CREATES)
  expect(new Set(claimed.map(({ session_id }) => session_id)).size).toBe(CREATES)
  expect(await stack.sql('select id from session where id = any($1) and attempt <> 1', [ids])).toEqual([])
  expect(most.provisioning).toBeLessThanOrEqual(AT_ONCE)
  expect(most.held).toBeLessThanOrEqual(POOL)
  const [seen] = await stack.sql<{ provisioning: number; held: number; rows: number }>(
    'select max(provisioning) provisioning, max(held) held, count(*)::int as rows from seen',
  )
  expect(seen?.rows).toBeGreaterThanOrEqual(POOL)
  expect(seen?.provisioning).toBeLessThanOrEqual(AT_ONCE)
  expect(seen?.held).toBeLessThanOrEqual(POOL)

  const ends = await times(CREATES, (i) => stack.http('DELETE', `/sessions/${ids[i] ?? ''}`, undefined, { api: i % 2 }))
  expect(new Set(ends.map(({ status }) => status))).toEqual(new Set([200]))
  const names = await stack.sql<{ name: string }>('select name from sandbox where session_id = any($1)', [ids])
  await leavesNothing(
    stack,
    names.map(({ name }) => name),
    60_000,
  )
}, 400_000)
