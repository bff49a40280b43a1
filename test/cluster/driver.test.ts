import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { request } from 'undici'
import type { KubernetesDriver } from '../../kubernetes/driver.ts'
import { neighbourProblems } from '../../kubernetes/neighbours.ts'
import { type KubeList, type KubeObject, pathOf, type Pod, type Sandbox } from '../../kubernetes/objects.ts'
import { eventually } from './namespace.ts'
import { sharedKubeconfig } from './shared.ts'
import { becomesReady, createWorld, type World } from './world.ts'

const { signal } = new AbortController()

describe.each(['sandbox', 'pod'] as const)('with K8S_SANDBOX_API=%s', (api) => {
  let world: World

  beforeAll(async () => {
    world = await createWorld({ kubeconfig: sharedKubeconfig(), api })
  })
  afterAll(async () => {
    await world?.[Symbol.asyncDispose]()
  })

  const namesOf = async (resource: 'sandboxes' | 'pods' | 'services'): Promise<string[]> => {
    const { items } = await world.kube.get<KubeList<KubeObject>>(pathOf(resource, world.namespace))
    return items.map(({ metadata }) => metadata.name)
  }
  /** Nothing of these is in the cluster any more. */
  const gone = async (...names: string[]): Promise<void> => {
    const left = async (): Promise<string[]> =>
      (await Promise.all([namesOf('sandboxes'), namesOf('pods'), namesOf('services')])).flat()
    await eventually(left, (all) => !names.some((name) => all.includes(name)))
  }

  test('a sandbox is made, configured, used and removed, each as often as one likes', async () => {
    const { driver } = world
    const spec = world.spec()
    await driver.create(spec)
    await driver.create(spec)
    const phases: string[] = []
    const { endpoint } = await becomesReady(driver, spec.name, { onProgress: (phase) => phases.push(phase) })
    expect(phases).toContain('pod_running')
    const health = await request(`${endpoint}/healthz`, { headers: { authorization: `Bearer ${spec.token}` } })
    expect(await health.body.json()).toMatchObject({ state: 'booted', sandbox_id: spec.sandboxId })
    await driver.markClaimed(spec.name, 'session-1')
    await driver.markClaimed(spec.name, 'session-1')
    await driver.remove(spec.name)
    await driver.remove(spec.name)
    await gone(spec.name)
    await driver.remove(spec.name)
    await expect(driver.inspect(spec.name)).resolves.toMatchObject({ exists: false, alive: false })
  })

  test('a pod has the resources of its agent, and the rest of the settings', async () => {
    const { driver } = world
    const spec = world.spec({ resources: { requests: { cpu: '300m' }, limits: { memory: '3Gi' } } })
    await driver.create(spec)
    const pod = await eventually(() => world.find<Pod>('pod', spec.name))
    expect(pod.spec?.containers?.[0]?.resources).toEqual({
      requests: { cpu: '300m', memory: '512Mi' },
      limits: { cpu: '2', memory: '3Gi' },
    })
    await driver.remove(spec.name)
  })

  test('one for the pool is ready when it is warm, one for a session when it has booted', async () => {
    const { driver, supervisors } = world
    const pool = world.spec({ purpose: 'pool' })
    const session = world.spec({ purpose: 'session' })
    await Promise.all([driver.create(pool), driver.create(session)])
    await Promise.all([becomesReady(driver, pool.name), becomesReady(driver, session.name)])
    expect(supervisors.of(pool.name)?.health().state).toBe('warm')
    expect(supervisors.of(session.name)?.health().state).toBe('booted')
    await Promise.all([driver.remove(pool.name), driver.remove(session.name)])
  })

  test('objects say in which state a sandbox is, and after the claim whose it is and that it is not to be evicted', async () => {
    const { driver } = world
    const spec = world.spec({ purpose: 'pool' })
    const labels = async () => {
      const [object, pod] = await Promise.all([
        world.find<Sandbox>('object', spec.name),
        world.find<Pod>('pod', spec.name),
      ])
      return { object, pod }
    }
    await driver.create(spec)
    const fixed = {
      'lap/sandbox': spec.sandboxId,
      'lap/agent': spec.agentId,
      'lap/template': spec.templateHash,
      'lap/purpose': 'pool',
      'lap/instance': 'lap',
      'lap/installation': world.settings.installation,
    }
    expect((await labels()).object?.metadata.labels).toMatchObject({ ...fixed, 'lap/state': 'starting' })
    await becomesReady(driver, spec.name)
    const ready = await labels()
    expect(ready.object?.metadata.labels).toMatchObject({ ...fixed, 'lap/state': 'ready' })
    expect(ready.pod?.metadata.labels).toMatchObject({ ...fixed, 'lap/state': 'ready' })
    expect(ready.object?.metadata.annotations).toMatchObject({ 'lap/pod-uid': ready.pod?.metadata.uid })
    expect(ready.pod?.metadata.annotations).toMatchObject({ 'cluster-autoscaler.kubernetes.io/safe-to-evict': 'true' })
    await driver.markClaimed(spec.name, 'session-2')
    const claimed = await labels()
    expect(claimed.object?.metadata.labels).toMatchObject({ 'lap/state': 'claimed', 'lap/session': 'session-2' })
    expect(claimed.pod?.metadata.labels).toMatchObject({ 'lap/state': 'claimed', 'lap/session': 'session-2' })
    expect(claimed.pod?.metadata.annotations).toMatchObject({
      'cluster-autoscaler.kubernetes.io/safe-to-evict': 'false',
    })
    if (api === 'sandbox')
      expect(claimed.object?.spec?.podTemplate?.metadata).toMatchObject({
        labels: { 'lap/state': 'claimed' },
        annotations: { 'cluster-autoscaler.kubernetes.io/safe-to-evict': 'false' },
      })
    const listed = (await driver.list()).find(({ name }) => name === spec.name)
    expect(listed).toMatchObject({ sandboxId: spec.sandboxId, sessionId: 'session-2', alive: true })
    await driver.remove(spec.name)
    await gone(spec.name)
  })

  test('a pod disruption budget keeps claimed pods, and lets warm ones go', async () => {
    const { driver, kube, namespace } = world
    const budgets = `/apis/policy/v1/namespaces/${namespace}/poddisruptionbudgets`
    const spec = { minAvailable: 2_147_483_647, selector: { matchLabels: { 'lap/state': 'claimed' } } }
    await kube.create(budgets, {
      apiVersion: 'policy/v1',
      kind: 'PodDisruptionBudget',
      metadata: { name: 'claimed' },
      spec,
    })
    const [warm, claimed] = [world.spec({ purpose: 'pool' }), world.spec({ purpose: 'pool' })]
    await Promise.all([driver.create(warm), driver.create(claimed)])
    await Promise.all([becomesReady(driver, warm.name), becomesReady(driver, claimed.name)])
    await driver.markClaimed(claimed.name, 'session-3')
    await eventually(
      () => kube.get<{ status?: { currentHealthy?: number } }>(`${budgets}/claimed`),
      ({ status }) => status?.currentHealthy === 1,
    )
    const evict = (name: string): Promise<unknown> =>
      kube.create(`${world.path('pod', name)}/eviction`, {
        apiVersion: 'policy/v1',
        kind: 'Eviction',
        metadata: { name },
      })
    await expect(evict(claimed.name)).rejects.toMatchObject({ status: 429 })
    await expect(evict(warm.name)).resolves.toBeDefined()
    await kube.remove(`${budgets}/claimed`)
    await Promise.all([driver.remove(warm.name), driver.remove(claimed.name)])
  })

  test('readiness comes by watch: what a start asks for does not grow with its time', async () => {
    const { driver, sent } = world
    const startsFor = async (setupCommand: string | null) => {
      const spec = world.spec({ setupCommand })
      const before = sent.length
      await driver.create(spec)
      await becomesReady(driver, spec.name)
      const asked = sent.slice(before).filter(({ watch }) => !watch)
      await driver.remove(spec.name)
      return asked.map(({ method }) => method)
    }
    const quick = await startsFor(null)
    const slow = await startsFor('sleep 2')
    expect(slow).toEqual(quick)
    expect(quick).toEqual(api === 'sandbox' ? ['POST', 'PATCH', 'PATCH'] : ['POST', 'PATCH'])
  })

  test('fifty at once become ready, and leave nothing behind', async () => {
    const { driver, sent } = world
    const specs = Array.from({ length: 50 }, () => world.spec({ purpose: 'pool' }))
    const before = sent.length
    await Promise.all(
      specs.map(async (spec) => {
        await driver.create(spec)
        await becomesReady(driver, spec.name)
      }),
    )
    const listed = await driver.list()
    expect(specs.every(({ name }) => listed.some((one) => one.name === name && one.alive))).toBe(true)
    await Promise.all(specs.map(({ name }) => driver.remove(name)))
    // The server may end a watch at any time; none is there for a sandbox of its own.
    expect(sent.slice(before).filter(({ watch }) => watch).length).toBeLessThan(5)
    await gone(...specs.map(({ name }) => name))
  }, 180_000)

  test('a start that one worker began another one finishes', async () => {
    const [first, second] = [world.driver, world.another()]
    const spec = world.spec({ setupCommand: 'sleep 1' })
    await first.create(spec)
    const stop = new AbortController()
    const began = becomesReady(first, spec.name, { signal: stop.signal }).catch((error: unknown) => error)
    await eventually(
      async () => world.supervisors.of(spec.name) ?? null,
      (supervisor) => supervisor.isConfigured(),
    )
    stop.abort(new Error('the worker ends'))
    expect(await began).toMatchObject({ message: 'the worker ends' })
    await second.create(spec)
    await expect(becomesReady(second, spec.name)).resolves.toMatchObject({ endpoint: expect.any(String) })
    await second.remove(spec.name)
  })

  test('a name that belongs to somebody else is neither taken nor removed', async () => {
    const { driver, kube } = world
    const spec = world.spec()
    const pod = {
      metadata: { name: spec.name },
      spec: { containers: [{ name: 'other', image: 'registry.invalid/other:1' }] },
    }
    const body =
      api === 'pod'
        ? { apiVersion: 'v1', kind: 'Pod', ...pod }
        : {
            apiVersion: 'agents.x-k8s.io/v1beta1',
            kind: 'Sandbox',
            metadata: pod.metadata,
            spec: { podTemplate: { spec: pod.spec } },
          }
    const path = world.path('object', spec.name)
    await kube.create(path.slice(0, path.lastIndexOf('/')), body)
    await expect(driver.create(spec)).rejects.toMatchObject({ code: 'invalid' })
    await expect(driver.remove(spec.name)).rejects.toMatchObject({ code: 'conflict' })
    await expect(kube.get<KubeObject>(path)).resolves.toMatchObject({ metadata: { name: spec.name } })
    await kube.remove(path)
  })

  test('two installations in one namespace leave each other alone', async () => {
    const { driver } = world
    const other = world.another({ settings: { instance: 'other' } })
    const spec = world.spec()
    await driver.create(spec)
    await becomesReady(driver, spec.name)
    await expect(other.list()).resolves.toEqual([])
    await expect(other.remove(spec.name)).rejects.toMatchObject({ code: 'conflict' })
    const lost: string[] = []
    const stop = new AbortController()
    other.watchLost((name) => lost.push(name), stop.signal)
    await driver.remove(spec.name)
    await gone(spec.name)
    expect(lost).toEqual([])
    stop.abort()
  })

  test('two installations with the same settings see whose a sandbox is, and that K8S_INSTANCE must change', async () => {
    const { driver, settings } = world
    const otherSettings = { ...settings, installation: randomUUID() }
    const other = world.another({ settings: otherSettings })
    const spec = world.spec()
    await driver.create(spec)
    const whose = async (who: KubernetesDriver) => (await who.list()).find(({ name }) => name === spec.name)?.ours
    expect([await whose(driver), await whose(other)]).toEqual([true, false])
    const { client } = driver.cluster
    expect(await neighbourProblems({ client, settings })).toEqual([])
    const said = await neighbourProblems({ client, settings: otherSettings })
    expect(said).toMatchObject([{ remedy: expect.stringContaining('K8S_INSTANCE') }])
    // And the one whose it is, with another instance than it had.
    const [leftOver] = await neighbourProblems({ client, settings: { ...settings, instance: 'renamed' } })
    expect(leftOver?.remedy).toContain('K8S_INSTANCE=lap')
    await driver.remove(spec.name)
    await gone(spec.name)
  })

  if (api === 'sandbox')
    test('where plain Pods are the sandboxes, one that a controller would make again is not removed', async () => {
      const { driver } = world
      const pods = world.another({ settings: { api: 'pod' } })
      const spec = world.spec()
      await driver.create(spec)
      await becomesReady(driver, spec.name)
      await expect(pods.remove(spec.name)).rejects.toThrow('K8S_SANDBOX_API=sandbox')
      expect(await world.find('pod', spec.name)).not.toHaveProperty('metadata.deletionTimestamp')
      await driver.remove(spec.name)
      await gone(spec.name)
    })

  test('after a restart of the driver all is known from the cluster: what there is, whose it is, and what is lost', async () => {
    const { driver } = world
    const [kept, lostOne] = [world.spec(), world.spec()]
    for (const spec of [kept, lostOne]) {
      await driver.create(spec)
      await becomesReady(driver, spec.name)
      await driver.markClaimed(spec.name, `session of ${spec.sandboxId}`.slice(-8))
    }
    const second = world.another()
    const lost: string[] = []
    second.watchLost((name) => lost.push(name), signal)
    const names = (await second.list()).map(({ name }) => name)
    expect(names).toEqual(expect.arrayContaining([kept.name, lostOne.name]))
    await world.kube.remove(world.path('pod', lostOne.name))
    await eventually(
      async () => lost,
      (names) => names.length > 0,
      5_000,
    )
    await sleep(300)
    expect(lost).toEqual([lostOne.name])
    await expect(second.lossOf(lostOne.name)).resolves.toMatchObject({
      code: 'sandbox_lost',
      evidence: expect.any(Object),
    })
    // A third comes when it is lost already.
    const third = world.another()
    const seen: string[] = []
    third.watchLost((name) => seen.push(name), signal)
    await eventually(
      async () => seen,
      (names) => names.length > 0,
      5_000,
    ).catch((error: unknown) => {
      // A plain Pod that is gone leaves nothing to be seen: the ledger finds it.
      if (api === 'sandbox') throw error
    })
    await Promise.all([kept, lostOne].map(({ name }) => second.remove(name)))
    await gone(kept.name, lostOne.name)
  })
})
