import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { type KubeObject, pathOf, type Resource } from '../../kubernetes/objects.ts'
import { until } from '../until.ts'
import {
  createAgent, expectWholeLog, insist, type Message, openSession, sandboxesOf, type Session, sweep, textOf, times,
} from '../faults/world.ts' // prettier-ignore
import { COLLIDED, NOT_READY, SLOW_DOWN } from './bad-server.ts'
import { NAMESPACE, type Platform, startPlatform } from './platform.ts'

const SESSIONS = 200
const AT_ONCE = 20
const POOL = 20
const PROVISIONING = 10
const OUTAGE_MS = 20_000

type Counts = { provisioning: number; pooled: number }

describe.each(['sandbox', 'pod'] as const)('with K8S_SANDBOX_API=%s', (api) => {
  let platform: Platform
  beforeAll(async () => {
    platform = await startPlatform(api, {
      WARM_POOL_SIZE: String(POOL),
      WARM_POOL_MAX_PROVISIONING: String(PROVISIONING),
    })
  }, 120_000)
  afterAll(async () => platform?.[Symbol.asyncDispose](), 120_000)

  /** What a sandbox is in the cluster. */
  const resources: Resource[] = api === 'sandbox' ? ['sandboxes', 'pods'] : ['pods']
  const labelsOf = (name: string): Promise<Record<string, string>[]> =>
    Promise.all(
      resources.map(async (resource) => {
        const { metadata } = await platform.kube.get<KubeObject>(pathOf(resource, NAMESPACE, name))
        return metadata.labels ?? {}
      }),
    )

  test.each(resources)(
    'a sandbox in use that has lost its mark (%s) gets it back from the janitor',
    async (resource) => {
      const { stack, kube } = platform
      const agent = await createAgent(stack)
      const { id } = await openSession(stack, agent, { wait: true })
      const { name } = (await sandboxesOf(stack, id)).at(-1) ?? { name: 'none' }
      const isMarked = async (): Promise<boolean> =>
        (await labelsOf(name)).every((one) => one['lap/state'] === 'claimed' && one['lap/session'] === id)
      await until('it is marked', 20_000, isMarked)
      const unmarked = { metadata: { labels: { 'lap/session': null, 'lap/state': 'ready' } } }
      await kube.patch(pathOf(resource, NAMESPACE, name), unmarked)
      await stack.sql("update sandbox set claimed_at = claimed_at - interval '5 minutes' where name = $1", [name])
      expect(await sweep(stack)).toMatchObject({ errors: 0 })
      expect(await isMarked()).toBe(true)
      expect((await stack.http('DELETE', `/agents/${agent}`)).status).toBe(204)
    },
    90_000,
  )

  /** One session from its create to its end. @returns its id */
  const live = async (agent: string, n: number): Promise<string> => {
    const { stack } = platform
    const created = await insist<Session>(stack, 'POST', `/agents/${agent}/session`, {
      body: { title: `${n}` },
      key: `create-${n}`,
    })
    expect(created.status).toBe(200)
    const { id } = created.body
    const reply = await insist<Message>(stack, 'POST', `/sessions/${id}/message`, {
      body: { text: `m-${n}` },
      key: `turn-${n}`,
    })
    expect({ n, status: reply.status, text: textOf(reply.body) }).toEqual({ n, status: 200, text: `m-${n}` })
    expect((await insist(stack, 'DELETE', `/sessions/${id}`, { key: `end-${n}` })).status).toBe(200)
    return id
  }

  /** What can go wrong around a platform, one after the other, each over before the next. */
  const strike = async (over: AbortSignal): Promise<string[]> => {
    const { stack, cluster, server } = platform
    const faults: [name: string, strike: () => Promise<void>][] = [
      [
        'a worker killed',
        () =>
          stack
            .worker(0)
            .kill('SIGKILL')
            .then(() => stack.worker(0).start()),
      ],
      ['the controller killed', () => platform.replaceController()],
      ['watches cut', async () => void server.cutWatches()],
      [
        'writes answered with 409 and 429',
        async () => {
          let writes = 0
          server.interfere(({ method }) => {
            if (method === 'GET') return null
            writes++
            if (writes % 3 === 0) return SLOW_DOWN
            return writes % 3 === 1 && method !== 'DELETE' ? COLLIDED : null
          })
          await sleep(8_000)
          server.interfere(null)
        },
      ],
      [
        'the API server stopped',
        async () => {
          await cluster.own.killApiServer()
          await sleep(OUTAGE_MS)
          // An API server answers before it is ready, and compares the node ports that are allocated with the Services while it starts: after four collisions with
          // creates it gives up, and ends after a minute. Whoever has more than one keeps creates from one that is not ready.
          server.interfere(() => NOT_READY)
          await cluster.own.restartApiServer()
          server.interfere(null)
        },
      ],
      [
        'the other worker killed',
        () =>
          stack
            .worker(1)
            .kill('SIGKILL')
            .then(() => stack.worker(1).start()),
      ],
      ['watches cut again', async () => void server.cutWatches()],
    ]
    const struck: string[] = []
    for (const [name, work] of faults) {
      await sleep(4_000)
      if (over.aborted) break
      struck.push(name)
      await work()
    }
    return struck
  }

  /** The limits are of the whole pool, at every moment. */
  const watchLimits = async (over: AbortSignal): Promise<Counts> => {
    const most: Counts = { provisioning: 0, pooled: 0 }
    while (!over.aborted) {
      const [now] = await platform.stack.sql<Counts>(
        `select count(*) filter (where state = 'provisioning')::int provisioning,
           count(*) filter (where not retiring)::int pooled
         from sandbox where purpose = 'pool' and session_id is null and state in ('provisioning', 'warm')`,
      )
      most.provisioning = Math.max(most.provisioning, now?.provisioning ?? 0)
      most.pooled = Math.max(most.pooled, now?.pooled ?? 0)
      await sleep(50)
    }
    return most
  }

  test(`${SESSIONS} sessions, ${AT_ONCE} at once, are all served while everything around them dies, and nothing is left of them`, async () => {
    const { stack } = platform
    const agent = await createAgent(stack)
    const over = new AbortController()
    const ids: string[] = []
    let next = 0
    const living = times(AT_ONCE, async () => {
      for (let n = next++; n < SESSIONS; n = next++) ids[n] = await live(agent, n)
    }).finally(() => over.abort())
    const [struck, most] = await Promise.all([strike(over.signal), watchLimits(over.signal), living]).catch(
      async (error: unknown) => {
        over.abort()
        console.error('where it stands:', JSON.stringify(await platform.standing().catch(String)))
        throw error
      },
    )
    const starts = await stack.sql('select spawn_mode, count(*)::int from session group by spawn_mode')
    console.log(`${api}: ${struck.join(', ')}; most at one moment: ${JSON.stringify(most)}; ${JSON.stringify(starts)}`)
    expect(struck).toContain('the API server stopped')
    expect(new Set(platform.server.refused.map(({ status }) => status))).toEqual(new Set([409, 429, 503]))
    expect(most.provisioning).toBeLessThanOrEqual(PROVISIONING)
    expect(most.pooled).toBeLessThanOrEqual(POOL)

    expect(new Set(ids).size).toBe(SESSIONS)
    for (const id of ids) await expectWholeLog(stack, id)
    const shared = await stack.sql(
      'select sandbox_id from turn group by sandbox_id having count(distinct session_id) > 1',
    )
    expect(shared).toEqual([])
    expect(await stack.sql("select id from turn where status <> 'done'")).toEqual([])

    expect((await insist(stack, 'DELETE', `/agents/${agent}`, { key: 'end' })).status).toBe(204)
    const rows = (): Promise<object[]> => stack.sql("select name, state from sandbox where state <> 'gone'")
    await until('no row is left', 120_000, async () => (await rows()).length === 0).catch(async () =>
      expect(await rows()).toEqual([]),
    )
    const none = (left: Record<string, number>): boolean => Object.values(left).every((count) => count === 0)
    await until('no object is left', 30_000, async () => none(await platform.left())).catch(async () =>
      expect(await platform.left()).toEqual({}),
    )
    expect(platform.supervisors.count()).toBe(0)
  }, 600_000)
})
