import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { conditionOf, type KubeList, type Node, type Pod } from '../../kubernetes/objects.ts'
import type { SandboxSpec } from '../../sandbox/driver.ts'
import { createKubeClient } from '../../kubernetes/client.ts'
import { loadCredentials } from '../../kubernetes/credentials.ts'
import { preflight } from '../../kubernetes/preflight.ts'
import { connectKube, readAccess } from '../../tools/cluster/kube.ts'
import { type BadServer, COLLIDED, SLOW_DOWN, startBadServer, statusBody } from './bad-server.ts'
import { type PrivateCluster, startPrivateCluster } from './cluster.ts'
import { eventually, getOrNull } from './namespace.ts'
import { becomesReady, createWorld, type World } from './world.ts'

/** A cluster of its own: it is treated badly. */
let cluster: PrivateCluster

beforeAll(async () => {
  // A silent node is noticed within a test, but not taken for dead after an API server that was away for 20 s.
  cluster = await startPrivateCluster({ nodes: 3, leaseS: 30 })
}, 120_000)
afterAll(async () => {
  await cluster?.stop()
})

describe.each(['sandbox', 'pod'] as const)('with K8S_SANDBOX_API=%s', (api) => {
  let world: World
  let server: BadServer
  /** Through a server that can be told to answer by itself. */
  let viaBad: string

  beforeAll(async () => {
    world = await createWorld({ kubeconfig: cluster.kubeconfig, api })
    server = await startBadServer(cluster)
    viaBad = await cluster.own.kubeconfigVia('tester', server.port)
  })
  afterAll(async () => {
    await world?.[Symbol.asyncDispose]()
    await server?.[Symbol.asyncDispose]()
  })

  const isGone = async ({ name }: SandboxSpec): Promise<void> => {
    const left = () => Promise.all([world.find('object', name), world.find('pod', name)])
    await eventually(left, (found) => found.every((object) => object === null))
  }

  test('watches that are cut again and again hide nothing', async () => {
    const driver = world.another({ kubeconfig: viaBad })
    const lost: string[] = []
    const stop = new AbortController()
    driver.watchLost((name) => lost.push(name), stop.signal)
    await driver.cluster.synced()
    let cuts = 0
    const cutting = setInterval(() => (cuts += server.cutWatches()), 100)
    const specs = Array.from({ length: 10 }, () => world.spec())
    await Promise.all(
      specs.map(async (spec) => {
        await driver.create(spec)
        await becomesReady(driver, spec.name)
      }),
    )
    await Promise.all(specs.map(({ name }) => world.kube.remove(world.path('object', name))))
    await eventually(
      async () => lost,
      (names) => names.length >= specs.length,
    )
    clearInterval(cutting)
    expect(cuts).toBeGreaterThan(3)
    expect(lost.toSorted()).toEqual(specs.map(({ name }) => name).toSorted())
    stop.abort()
  })

  test('a version that the server has forgotten is a new list, and what was missed is told', async () => {
    const driver = world.another({ kubeconfig: viaBad })
    const lost: string[] = []
    const stop = new AbortController()
    driver.watchLost((name) => lost.push(name), stop.signal)
    const spec = world.spec()
    await driver.create(spec)
    await becomesReady(driver, spec.name)
    // Nothing is heard, and the sandbox goes; then every watch is told that its version is too old.
    server.interfere(({ url }) => {
      if (url.searchParams.get('watch') !== 'true') return null
      return { status: 410, body: statusBody(410, 'Expired', 'too old resource version') }
    })
    server.cutWatches()
    await world.kube.remove(world.path('object', spec.name))
    await isGone(spec)
    await eventually(
      async () => lost,
      (names) => names.includes(spec.name),
      5_000,
    )
    expect(server.refused.length).toBeGreaterThan(0)
    server.interfere(null)
    const next = world.spec()
    await driver.create(next)
    await becomesReady(driver, next.name)
    await driver.remove(next.name)
    stop.abort()
  })

  test('a server that asks for patience is given it, for as long as it asks', async () => {
    const driver = world.another({ kubeconfig: viaBad })
    await driver.cluster.synced()
    server.refused.length = 0
    let left = 2
    server.interfere(({ method }) => {
      if (method !== 'POST' || left-- <= 0) return null
      return SLOW_DOWN
    })
    const spec = world.spec()
    const startedAt = Date.now()
    await driver.create(spec)
    const took = Date.now() - startedAt
    expect(server.refused).toHaveLength(2)
    expect(took).toBeGreaterThanOrEqual(2_000)
    expect(took).toBeLessThan(8_000)
    server.interfere(null)
    await becomesReady(driver, spec.name)
    await driver.remove(spec.name)
  })

  test('creates that collide with others are sent again', async () => {
    const driver = world.another({ kubeconfig: viaBad })
    await driver.cluster.synced()
    const seen = new Set<string>()
    server.interfere(({ method, url }) => {
      if (method !== 'POST' || seen.has(url.pathname)) return null
      seen.add(url.pathname)
      return COLLIDED
    })
    const spec = world.spec()
    await driver.create(spec)
    server.interfere(null)
    expect(seen.size).toBeGreaterThan(0)
    await becomesReady(driver, spec.name)
    await driver.remove(spec.name)
  })

  test('an answer that is lost on its way makes no second sandbox, and no failure', async () => {
    const driver = world.another({ kubeconfig: viaBad })
    const spec = world.spec()
    await world.driver.create(spec)
    // What the server answers to the repetition of a request that it has done.
    await expect(driver.create(spec)).resolves.toBeUndefined()
    let left = 2
    server.interfere(({ method }) =>
      method === 'DELETE' && left-- > 0
        ? { status: 503, body: statusBody(503, 'ServiceUnavailable', 'not now') }
        : null,
    )
    await driver.remove(spec.name)
    server.interfere(null)
    await isGone(spec)
  })
})

describe('what happens to the whole cluster', () => {
  let worlds: World[]

  beforeAll(async () => {
    const apis = ['sandbox', 'pod'] as const
    worlds = await Promise.all(apis.map((api) => createWorld({ kubeconfig: cluster.kubeconfig, api })))
  })
  afterAll(async () => {
    for (const world of worlds ?? []) await world[Symbol.asyncDispose]()
  })

  const watching = ({ driver }: World) => {
    const lost: string[] = []
    const stop = new AbortController()
    driver.watchLost((name) => lost.push(name), stop.signal)
    return { lost, [Symbol.dispose]: () => stop.abort() }
  }
  const start = async (world: World): Promise<SandboxSpec> => {
    const spec = world.spec()
    await world.driver.create(spec)
    await becomesReady(world.driver, spec.name)
    return spec
  }

  test('nodes that fall silent take their sandboxes with them', async () => {
    const before = await Promise.all(
      worlds.map(async (world) => ({ world, spec: await start(world), watch: watching(world) })),
    )
    await cluster.own.killNodes()
    await Promise.all(
      before.map(async ({ world, spec, watch }) => {
        const node = (await world.find<Pod>('pod', spec.name))?.spec?.nodeName
        const isSilent = async (): Promise<boolean> => {
          const { status } = await world.kube.get<Node>(`/api/v1/nodes/${node}`)
          return conditionOf(status?.conditions, 'Ready')?.status !== 'True'
        }
        await eventually(isSilent, Boolean, 60_000)
        await eventually(
          async () => watch.lost,
          (names) => names.includes(spec.name),
          5_000,
        )
        watch[Symbol.dispose]()
        await expect(world.driver.lossOf(spec.name)).resolves.toMatchObject({
          code: 'sandbox_lost',
          message: expect.stringContaining(`Nothing is heard of its node ${node}`),
        })
        await world.driver.remove(spec.name)
      }),
    )
    await cluster.own.restartNodes()
    const isReady = (node: Node): boolean => conditionOf(node.status?.conditions, 'Ready')?.status === 'True'
    const nodes = () => worlds[0]!.kube.get<KubeList<Node>>('/api/v1/nodes')
    await eventually(nodes, ({ items }) => items.every(isReady), 60_000)
    for (const { driver } of worlds)
      await eventually(
        () => driver.list(),
        (listed) => listed.length === 0,
      )
  }, 180_000)

  test('while the API server is away for 20 s nothing is lost, and after it everything goes on', async () => {
    const before = await Promise.all(
      worlds.map(async (world) => {
        const kept = await start(world)
        const starting = world.spec({ setupCommand: 'sleep 3' })
        await world.driver.create(starting)
        const ready = becomesReady(world.driver, starting.name, { deadlineMs: 60_000 })
        await eventually(
          () => world.find<Pod>('pod', starting.name),
          ({ status }) => status?.phase === 'Running',
        )
        return { world, kept, starting, ready, during: world.spec(), watch: watching(world) }
      }),
    )
    await cluster.own.killApiServer()
    const awayAt = Date.now()
    await Promise.all(
      before.map(async ({ world: { driver }, during }) => {
        await expect(driver.create(during)).rejects.toMatchObject({ code: 'unavailable' })
        await expect(driver.list()).rejects.toMatchObject({ code: 'unavailable' })
      }),
    )
    await sleep(Math.max(0, awayAt + 20_000 - Date.now()))
    await cluster.own.restartApiServer()
    await Promise.all(
      before.map(async ({ world, kept, starting, ready, during, watch }) => {
        const { driver } = world
        await ready
        await driver.create(during)
        await becomesReady(driver, during.name, { deadlineMs: 60_000 })
        expect(watch.lost).toEqual([])
        await world.kube.remove(world.path('pod', kept.name))
        await eventually(
          async () => watch.lost,
          (names) => names.includes(kept.name),
          15_000,
        )
        expect(watch.lost).toEqual([kept.name])
        watch[Symbol.dispose]()
        for (const spec of [kept, starting, during]) await driver.remove(spec.name)
        await eventually(
          () => driver.list(),
          (listed) => listed.length === 0,
        )
      }),
    )
  }, 180_000)
})

test('a cluster without agent-sandbox is told so, and what there is instead', async () => {
  const kube = connectKube(await readAccess(cluster.kubeconfig.admin))
  const definition = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/sandboxes.agents.x-k8s.io'
  await kube.remove(definition)
  await eventually(async () => (await getOrNull(kube, definition)) === null, Boolean)
  await using client = createKubeClient(loadCredentials(cluster.kubeconfig.tester))
  const look = (api: 'sandbox' | 'pod') => preflight({ client, api, namespace: 'default', access: 'pod-ip' })
  await eventually(
    () => look('sandbox'),
    ({ problems }) => problems.length > 0,
  )
  await expect(look('sandbox')).resolves.toMatchObject({
    problems: [
      {
        what: expect.stringContaining('agents.x-k8s.io/v1beta1'),
        remedy: expect.stringMatching(/Install agent-sandbox.*K8S_SANDBOX_API=pod/),
      },
    ],
  })
  await expect(look('pod')).resolves.toMatchObject({ problems: [], warnings: [] })
  await kube[Symbol.asyncDispose]()
})
