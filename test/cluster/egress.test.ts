import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { type KubeList, type KubeObject, type NetworkPolicy, pathOf, resourceOf } from '../../kubernetes/objects.ts'
import { rightsFor } from '../../kubernetes/preflight.ts'
import { type Access, readAccess, type WatchEvent } from '../../tools/cluster/kube.ts'
import { createAccount } from './accounts.ts'
import { eventually } from './namespace.ts'
import { sharedKubeconfig } from './shared.ts'
import { becomesReady, createWorld, type World } from './world.ts'

const RULES = { allowOut: ['192.0.2.0/24'] }

let dir: string
let access: Access
beforeAll(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'lap-egress-'))
  access = await readAccess(sharedKubeconfig().tester)
})
afterAll(() => rm(dir, { recursive: true, force: true }))

type Seen = { kind: 'policy' | 'object' | 'pod'; type: string; name: string; version: bigint }

describe.each(['sandbox', 'pod'] as const)('with K8S_SANDBOX_API=%s', (api) => {
  let world: World

  beforeAll(async () => {
    world = await createWorld({ kubeconfig: sharedKubeconfig(), api })
  })
  afterAll(async () => {
    await world?.[Symbol.asyncDispose]()
  })

  const gone = async (name: string): Promise<void> => {
    const left = () => Promise.all((['object', 'pod', 'policy'] as const).map((kind) => world.find(kind, name)))
    await eventually(left, (found) => found.every((object) => object === null))
  }

  /** What comes and goes, with the version that the API server gave the change: the order of all changes of a cluster. */
  const follow = (seen: Seen[]): Disposable => {
    const ended = new AbortController()
    const watch = async (kind: Seen['kind'], where: string): Promise<void> => {
      const events = world.kube.watch<KubeObject>(`${where}?watch=true`, ended.signal) as AsyncIterable<
        WatchEvent<KubeObject>
      >
      for await (const { type, object } of events)
        seen.push({ kind, type, name: object.metadata.name, version: BigInt(object.metadata.resourceVersion ?? 0) })
    }
    const kinds = [
      ['policy', 'networkpolicies'],
      ['pod', 'pods'],
      ...(api === 'sandbox' ? [['object', 'sandboxes'] as const] : []),
    ] as const
    for (const [kind, resource] of kinds) void watch(kind, pathOf(resource, world.namespace)).catch(() => undefined)
    return { [Symbol.dispose]: () => ended.abort() }
  }

  test('a policy is there before the sandbox, belongs to it, and outlives its pod', async () => {
    const { driver } = world
    const seen: Seen[] = []
    using _watches = follow(seen)
    const spec = world.spec(RULES)
    const version = async (kind: Seen['kind'], type: string): Promise<bigint> => {
      const of = async () =>
        seen.find((one) => one.kind === kind && one.type === type && one.name === spec.name) ?? null
      return (await eventually(of)).version
    }
    await driver.create(spec)
    const object = await world.find<KubeObject>('object', spec.name)
    const policy = await world.find<NetworkPolicy>('policy', spec.name)
    expect(policy?.metadata).toMatchObject({
      labels: { 'app.kubernetes.io/managed-by': 'lap', 'lap/instance': 'lap', 'lap/sandbox': spec.sandboxId },
      ownerReferences: [{ kind: api === 'pod' ? 'Pod' : 'Sandbox', name: spec.name, uid: object?.metadata.uid }],
    })
    expect(policy?.spec?.egress?.at(-1)).toEqual({ to: [{ ipBlock: { cidr: '192.0.2.0/24' } }] })
    await becomesReady(driver, spec.name)
    const pod = await world.find<KubeObject>('pod', spec.name)
    expect(pod?.metadata.labels).toMatchObject({ 'lap/egress': 'own' })
    expect(await version('policy', 'ADDED')).toBeLessThan(await version('pod', 'ADDED'))
    if (api === 'sandbox') expect(await version('policy', 'ADDED')).toBeLessThan(await version('object', 'ADDED'))
    await driver.markClaimed(spec.name, 'session-1')
    expect((await world.find<KubeObject>('pod', spec.name))?.metadata.labels).toMatchObject({ 'lap/egress': 'own' })
    await driver.remove(spec.name)
    await gone(spec.name)
    expect(await version('policy', 'DELETED')).toBeGreaterThan(await version('pod', 'DELETED'))
    await driver.remove(spec.name)
  })

  test('a policy goes with its sandbox, though nobody removes it', async () => {
    const spec = world.spec(RULES)
    await world.driver.create(spec)
    await becomesReady(world.driver, spec.name)
    await world.kube.remove(world.path('object', spec.name))
    await gone(spec.name)
  })

  test('who makes it again finds it, with the rules of now', async () => {
    const spec = world.spec(RULES)
    await world.driver.create(spec)
    await world.another().create({ ...spec, allowOut: ['198.51.100.0/24'] })
    const policy = await world.find<NetworkPolicy>('policy', spec.name)
    expect(policy?.spec?.egress?.at(-1)).toEqual({ to: [{ ipBlock: { cidr: '198.51.100.0/24' } }] })
    expect(policy?.metadata.ownerReferences).toHaveLength(1)
    await world.driver.remove(spec.name)
    await gone(spec.name)
  })

  test('one that was made without rules is not used when there are some', async () => {
    const spec = world.spec()
    await world.driver.create(spec)
    await expect(world.driver.create({ ...spec, ...RULES })).rejects.toMatchObject({
      failure: { code: 'setup_failed' },
    })
    await world.driver.remove(spec.name)
    await gone(spec.name)
  })

  test('what comes of a sandbox that is refused is no policy', async () => {
    const { driver } = world
    const refused = world.another({ settings: { serviceAccountName: 'Not a name' } })
    const spec = world.spec(RULES)
    const failed = await refused.create(spec).catch((error: unknown) => error)
    // The API server does not look into a Sandbox' pod.
    if (api === 'pod') expect(failed).toMatchObject({ failure: { code: 'setup_failed' } })
    await driver.remove(spec.name)
    await gone(spec.name)
  })

  test('a policy whose sandbox is not there is listed, and removed', async () => {
    const { driver, kube, namespace } = world
    const spec = world.spec(RULES)
    await driver.create(spec)
    const { metadata, ...policy } = (await world.find<NetworkPolicy>('policy', spec.name))!
    await driver.remove(spec.name)
    await gone(spec.name)
    const { name, labels } = metadata
    await kube.create(pathOf('networkpolicies', namespace), {
      ...policy,
      metadata: { name, ...(labels && { labels }) },
    })
    const { sandboxId, agentId } = spec
    await expect(driver.list()).resolves.toMatchObject([{ name, sandboxId, agentId, alive: false }])
    await driver.remove(name)
    await expect(driver.list()).resolves.toEqual([])
    await gone(name)
  })

  test('a policy of that name that belongs to somebody else is neither taken nor removed', async () => {
    const { driver, kube, namespace } = world
    const spec = world.spec(RULES)
    const body = { metadata: { name: spec.name }, spec: { podSelector: {}, policyTypes: ['Ingress'] } }
    await kube.create(pathOf('networkpolicies', namespace), body)
    await expect(driver.create(spec)).rejects.toMatchObject({ code: 'invalid' })
    await expect(world.find('object', spec.name)).resolves.toBeNull()
    await expect(driver.remove(spec.name)).rejects.toMatchObject({ code: 'conflict' })
    await kube.remove(world.path('policy', spec.name))
  })

  const shownOf = async (driver: World['driver'], name: string): Promise<unknown> => {
    const { details } = await driver.inspect(name)
    return (details as { pod: Record<string, unknown> }).pod['egress_policy']
  }

  test('what is known of a sandbox says which addresses it reaches', async () => {
    const { driver } = world
    const [open, closed] = [world.spec(), world.spec({ denyOut: ['192.0.2.1'] })]
    for (const spec of [open, closed]) {
      await driver.create(spec)
      await becomesReady(driver, spec.name)
    }
    const policyOf = (name: string): Promise<unknown> => shownOf(driver, name)
    await expect(policyOf(open.name)).resolves.toBeNull()
    await expect(policyOf(closed.name)).resolves.toEqual({
      exists: true,
      name: closed.name,
      allowed: ['0.0.0.0/0', '::/0'],
      except: expect.arrayContaining(['192.0.2.1/32', '10.0.0.0/8', 'fc00::/7']),
    })
    await Promise.all([open, closed].map(({ name }) => driver.remove(name)))
    await Promise.all([open, closed].map(({ name }) => gone(name)))
  })

  describe('without the right to', () => {
    const accountWithout = async (...verbs: string[]): Promise<string> => {
      const rights = rightsFor(api, 'pod-ip').filter(
        ({ resource, verb }) => !(resource === 'networkpolicies' && verbs.includes(verb)),
      )
      const { kube, namespace } = world
      return createAccount({ kube, access, namespace, rights, dir })
    }

    test.each(['create', 'patch'])(
      '%s policies a sandbox with rules does not start, and is not left open',
      async (verb) => {
        const driver = world.another({ kubeconfig: await accountWithout(verb) })
        const spec = world.spec(RULES)
        await expect(driver.create(spec)).rejects.toMatchObject({
          failure: {
            code: 'setup_failed',
            message: expect.stringMatching(
              new RegExp(`${verb}.*networkpolicies.networking.k8s.io.*cannot ${verb} resource`),
            ),
          },
        })
        const items = async (resource: 'pods' | 'networkpolicies' | 'sandboxes'): Promise<string[]> =>
          (await world.kube.get<KubeList<KubeObject>>(pathOf(resource, world.namespace))).items.map(
            ({ metadata }) => metadata.name,
          )
        if (verb === 'create') expect(await items(resourceOf(api))).not.toContain(spec.name)
        else expect(await items('networkpolicies')).toContain(spec.name)
        await driver.remove(spec.name)
        await gone(spec.name)
      },
    )

    test('look at policies a sandbox is known but for what it reaches', async () => {
      const driver = world.another({ kubeconfig: await accountWithout('get', 'list') })
      const spec = world.spec(RULES)
      await driver.create(spec)
      await becomesReady(driver, spec.name)
      const error = expect.stringContaining('cannot get resource')
      await expect(shownOf(driver, spec.name)).resolves.toEqual({ exists: false, error })
      await expect(driver.list()).resolves.toMatchObject([{ name: spec.name, alive: true }])
      await driver.remove(spec.name)
      await gone(spec.name)
    })

    test('touch policies everything else is as it was', async () => {
      const kubeconfig = await accountWithout('create', 'get', 'list', 'patch', 'delete')
      const driver = world.another({ kubeconfig })
      const spec = world.spec({ denyOut: ['example.com'], allowOut: ['api.example.com'] })
      await driver.create(spec)
      await becomesReady(driver, spec.name)
      await expect(driver.list()).resolves.toMatchObject([{ name: spec.name, alive: true }])
      await driver.inspect(spec.name)
      await driver.remove(spec.name)
      await gone(spec.name)
      await driver.remove(spec.name)
    })
  })
})
