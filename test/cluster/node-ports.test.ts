import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { request } from 'undici'
import type { Service } from '../../kubernetes/objects.ts'
import { pathOf } from '../../kubernetes/objects.ts'
import { eventually } from './namespace.ts'
import { sharedKubeconfig } from './shared.ts'
import { becomesReady, createWorld, type World } from './world.ts'

describe.each(['sandbox', 'pod'] as const)('with K8S_SANDBOX_API=%s', (api) => {
  let world: World

  beforeAll(async () => {
    world = await createWorld({ kubeconfig: sharedKubeconfig(), api, access: { by: 'nodeport', nodeHost: null } })
  })
  afterAll(async () => {
    await world?.[Symbol.asyncDispose]()
  })

  const gone = async (name: string): Promise<void> => {
    const left = () => Promise.all([world.find('object', name), world.find('pod', name), world.find('service', name)])
    await eventually(left, (found) => found.every((object) => object === null))
  }

  test('from outside a sandbox is reached by a port of its node', async () => {
    const { driver } = world
    const spec = world.spec()
    await driver.create(spec)
    await driver.create(spec)
    const { endpoint } = await becomesReady(driver, spec.name)
    const service = await world.find<Service & { spec: object }>('service', spec.name)
    expect(service?.spec).toMatchObject({
      type: 'NodePort',
      publishNotReadyAddresses: true,
      externalTrafficPolicy: 'Local',
    })
    expect(endpoint).toBe(`http://127.0.0.1:${service?.spec?.ports?.[0]?.nodePort}`)
    const health = await request(`${endpoint}/healthz`, { headers: { authorization: `Bearer ${spec.token}` } })
    expect(await health.body.json()).toMatchObject({ sandbox_id: spec.sandboxId })
    await driver.remove(spec.name)
    await gone(spec.name)
  })

  test('where nodes have one address for all, their ports pass on', async () => {
    const driver = world.another({ access: { by: 'nodeport', nodeHost: 'localhost' } })
    const spec = world.spec()
    await driver.create(spec)
    const { endpoint } = await becomesReady(driver, spec.name)
    expect(endpoint).toMatch(/^http:\/\/localhost:3\d{4}$/)
    await expect(world.find('service', spec.name)).resolves.toMatchObject({
      spec: { externalTrafficPolicy: 'Cluster' },
    })
    await driver.remove(spec.name)
    await gone(spec.name)
  })

  test('a Service goes with its owner, though nobody removes it', async () => {
    const spec = world.spec()
    await world.driver.create(spec)
    await becomesReady(world.driver, spec.name)
    await world.kube.remove(world.path('object', spec.name))
    await gone(spec.name)
  })

  test('a Service whose owner is gone is listed, and removed', async () => {
    const { driver, kube, namespace } = world
    const spec = world.spec()
    const labels = {
      'app.kubernetes.io/managed-by': 'lap',
      'lap/instance': 'lap',
      'lap/installation': world.settings.installation,
      'lap/sandbox': spec.sandboxId,
      'lap/agent': spec.agentId,
    }
    await kube.create(pathOf('services', namespace), {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: spec.name, labels },
      spec: { type: 'NodePort', ports: [{ port: 8_080 }] },
    })
    const { name, sandboxId } = spec
    await expect(driver.list()).resolves.toMatchObject([{ name, sandboxId, agentId: spec.agentId, alive: false }])
    await driver.remove(spec.name)
    await expect(driver.list()).resolves.toEqual([])
  })

  test('a pod whose Sandbox is gone is listed, and removed', async () => {
    if (api === 'pod') return
    const { driver } = world
    const spec = world.spec()
    await driver.create(spec)
    await becomesReady(driver, spec.name)
    // As `kubectl delete --cascade=orphan` does, or a CRD that is removed and made anew.
    await world.kube.remove(world.path('object', spec.name), { propagationPolicy: 'Orphan' })
    await eventually(async () => (await world.find('object', spec.name)) === null, Boolean)
    await eventually(
      () => driver.list(),
      (listed) => listed.some(({ name, alive }) => name === spec.name && !alive),
    )
    await driver.remove(spec.name)
    await gone(spec.name)
    await expect(driver.list()).resolves.toEqual([])
  })
})
