import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import type { KubernetesDriver } from '../../kubernetes/driver.ts'
import type { Pod } from '../../kubernetes/objects.ts'
import type { SandboxSpec } from '../../sandbox/driver.ts'
import { FAKE, FAKE_RUN, fakeNode } from '../../tools/cluster/components.ts'
import { eventually } from './namespace.ts'
import { sharedKubeconfig, sharedPlacement } from './shared.ts'
import { becomesReady, createWorld, type World } from './world.ts'

/** How much later than the cluster shows it a loss may be told. */
const TOLD_WITHIN_MS = 5_000

describe.each(['sandbox', 'pod'] as const)('with K8S_SANDBOX_API=%s', (api) => {
  let world: World
  let driver: KubernetesDriver
  let lost: string[]
  let stop: AbortController

  beforeAll(async () => {
    world = await createWorld({ kubeconfig: sharedKubeconfig(), api })
    driver = world.driver
  })
  afterAll(async () => {
    await world?.[Symbol.asyncDispose]()
  })
  beforeEach(() => {
    lost = []
    stop = new AbortController()
    driver.watchLost((name) => lost.push(name), stop.signal)
  })
  afterEach(() => stop.abort())

  /** A sandbox in use. */
  const claimed = async (from = driver): Promise<SandboxSpec> => {
    const spec = world.spec()
    await from.create(spec)
    await becomesReady(from, spec.name)
    await from.markClaimed(spec.name, 'session-1')
    return spec
  }
  const told = async ({ name }: SandboxSpec): Promise<void> => {
    await eventually(
      async () => lost,
      (names) => names.includes(name),
      TOLD_WITHIN_MS,
    )
    // Once, whatever else becomes of it.
    await new Promise((resolve) => setTimeout(resolve, 250))
    expect(lost.filter((one) => one === name)).toEqual([name])
  }

  /** What a kubelet writes. */
  const kubeletSays = (name: string, status: object): Promise<unknown> =>
    world.kube.patch(`${world.path('pod', name)}/status`, { status })
  const ended = (terminated: object): object => ({
    phase: 'Failed',
    containerStatuses: [
      {
        name: 'harness',
        image: 'registry.invalid/harness:1',
        imageID: '',
        ready: false,
        restartCount: 0,
        state: { terminated: { startedAt: null, finishedAt: null, ...terminated } },
      },
    ],
  })

  test.each<[string, (name: string) => Promise<unknown>, string, string]>([
    ['its pod is deleted', (name) => world.kube.remove(world.path('pod', name)), 'sandbox_lost', ''],
    ['its object is deleted', (name) => world.kube.remove(world.path('object', name)), 'sandbox_lost', ''],
    [
      'its pod is evicted',
      (name) =>
        world.kube.create(`${world.path('pod', name)}/eviction`, {
          apiVersion: 'policy/v1',
          kind: 'Eviction',
          metadata: { name },
        }),
      'sandbox_lost',
      '',
    ],
    [
      'its node is short of memory',
      (name) => kubeletSays(name, { phase: 'Failed', reason: 'Evicted', message: 'The node was low on memory.' }),
      'sandbox_lost',
      'low on memory',
    ],
    [
      'its container ends',
      (name) => kubeletSays(name, ended({ exitCode: 7, reason: 'Error' })),
      'sandbox_lost',
      'ended with code 7',
    ],
    [
      'its container is killed for its memory',
      (name) => kubeletSays(name, ended({ exitCode: 137, reason: 'OOMKilled' })),
      'oom_killed',
      'memory',
    ],
  ])('a sandbox in use is lost when %s', async (_how, end, code, message) => {
    const spec = await claimed()
    await end(spec.name)
    await told(spec)
    await expect(driver.lossOf(spec.name)).resolves.toMatchObject({ code, message: expect.stringContaining(message) })
    await driver.remove(spec.name)
  })

  test('a sandbox in use is lost with its node', async () => {
    const node = {
      ...fakeNode(0),
      metadata: {
        name: `fake-${world.namespace}`,
        labels: { only: world.namespace },
        annotations: { 'kwok.x-k8s.io/node': sharedPlacement().nodeSelector[FAKE_RUN] ?? FAKE },
      },
    }
    await world.kube.create('/api/v1/nodes', node)
    const spec = await claimed(world.another({ settings: { nodeSelector: { only: world.namespace } } }))
    const pod = await world.find<Pod>('pod', spec.name)
    expect(pod?.spec?.nodeName).toBe(node.metadata.name)
    await world.kube.remove(`/api/v1/nodes/${node.metadata.name}`)
    await told(spec)
    await expect(driver.lossOf(spec.name)).resolves.toMatchObject({ code: 'sandbox_lost' })
    await driver.remove(spec.name)
  })

  test('a sandbox that is removed by us is lost too: who removes it knows', async () => {
    const spec = await claimed()
    await driver.remove(spec.name)
    await told(spec)
  })

  test('what never ran is no loss', async () => {
    const spec = world.spec({ image: 'registry.invalid/image-missing:1' })
    await driver.create(spec)
    await expect(becomesReady(driver, spec.name)).rejects.toMatchObject({ failure: { code: 'image_pull' } })
    await driver.remove(spec.name)
    await eventually(async () => (await world.find('pod', spec.name)) === null, Boolean)
    expect(lost).not.toContain(spec.name)
  })
})
