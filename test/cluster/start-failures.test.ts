import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import type { PodSettings } from '../../kubernetes/manifest.ts'
import { pathOf, type Pod, type Sandbox } from '../../kubernetes/objects.ts'
import { SandboxFailedError, type SandboxFailure, type SandboxSpec } from '../../sandbox/driver.ts'
import { eventually } from './namespace.ts'
import { sharedKubeconfig } from './shared.ts'
import { startWebhook } from './webhook.ts'
import { becomesReady, createWorld, type World } from './world.ts'

/** How much later than the cluster shows it a failure may be told. */
const TOLD_WITHIN_MS = 5_000

const image = (name: string): Partial<SandboxSpec> => ({ image: `registry.invalid/${name}:1` })

/** Whether the cluster shows by itself that nothing comes of it. */
const isVisible = ({ status }: Pod): boolean =>
  status?.phase === 'Failed' ||
  (status?.conditions?.some(({ reason }) => reason === 'Unschedulable') ?? false) ||
  (status?.containerStatuses?.some(({ state }) => {
    const reason = state?.waiting?.reason ?? 'ContainerCreating'
    return state?.terminated !== undefined || reason !== 'ContainerCreating'
  }) ??
    false)

const isRefused = ({ status }: Sandbox): boolean =>
  status?.conditions?.some(({ type, reason }) => type === 'Ready' && reason === 'ReconcilerError') ?? false

describe.each(['sandbox', 'pod'] as const)('with K8S_SANDBOX_API=%s', (api) => {
  let world: World

  beforeAll(async () => {
    world = await createWorld({ kubeconfig: sharedKubeconfig(), api })
  })
  afterAll(async () => {
    await world?.[Symbol.asyncDispose]()
  })

  /** From when on the cluster shows the failure, in milliseconds since the epoch. */
  const visibleAt = async ({ name }: SandboxSpec): Promise<number> => {
    await eventually(async () => {
      const [pod, object] = await Promise.all([world.find<Pod>('pod', name), world.find<Sandbox>('object', name)])
      return (pod !== null && isVisible(pod)) || (object !== null && isRefused(object))
    }, Boolean)
    return Date.now()
  }

  type Start = { spec?: Partial<SandboxSpec>; settings?: Partial<PodSettings>; deadlineMs?: number }

  /** Starts what cannot become ready. @returns how it failed */
  const failureOf = async ({ spec: more = {}, settings, deadlineMs = 20_000 }: Start): Promise<SandboxFailure> => {
    const driver = settings === undefined ? world.driver : world.another({ settings })
    const spec = world.spec(more)
    const start = async (): Promise<never> => {
      await driver.create(spec)
      const visible = visibleAt(spec).catch(() => Number.POSITIVE_INFINITY)
      const ready = becomesReady(driver, spec.name, { deadlineMs })
      const outcome = await ready.then(
        () => null,
        (error: unknown) => ({ error, at: Date.now() }),
      )
      if (outcome === null) throw new Error('it became ready')
      const late =
        outcome.at -
        (await Promise.race([visible, new Promise<number>((resolve) => setTimeout(resolve, 200, outcome.at))]))
      expect(late).toBeLessThan(TOLD_WITHIN_MS)
      throw outcome.error
    }
    const error = await start().catch((reason: unknown) => reason)
    await driver.remove(spec.name)
    if (!(error instanceof SandboxFailedError)) throw error
    return error.failure
  }

  test.each([
    ['an image that is not there', image('image-missing'), 'image_pull', 'not found'],
    ['a registry that does not answer', image('registry-down'), 'image_pull', 'connection refused'],
    ['a container that cannot be made', image('config-missing'), 'setup_failed', 'CreateContainerConfigError'],
    ['a container that ends', image('crashes'), 'harness_exited', 'ended with code 1'],
    ['a container that is killed for its memory', image('out-of-memory'), 'oom_killed', 'memory'],
    ['a repository that is not there', { repoUrl: 'https://git.invalid/missing' }, 'clone_failed', 'not found'],
    ['a set-up command that fails', { setupCommand: 'false' }, 'setup_failed', 'ended with 1'],
  ])('%s is told by its code', async (_what, spec, code, message) => {
    const failure = await failureOf({ spec })
    expect(failure).toMatchObject({ code, message: expect.stringContaining(message), evidence: { exists: true } })
    expect(failure.evidence.details).toMatchObject({ pod: { exists: true, conditions: expect.any(Array) } })
  })

  test('a failed start leaves its evidence: containers, conditions, events, the last 200 lines of the log', async () => {
    const { evidence } = await failureOf({ spec: image('crashes') })
    expect(evidence).toMatchObject({
      exists: true,
      alive: false,
      state: 'Failed',
      exitCode: 1,
      node: expect.stringMatching(/^fake-/),
    })
    expect(evidence.logTail).toHaveLength(200)
    expect(evidence.logTail?.at(-1)).toContain('line 300')
    expect(JSON.stringify(evidence.details)).toContain('Successfully assigned')
  })

  test('no room on any node', async () => {
    const settings = { resources: { requests: { cpu: '1000' }, limits: { cpu: '1000' } } }
    const failure = await failureOf({ settings })
    expect(failure).toMatchObject({ code: 'unschedulable', message: expect.stringContaining('Insufficient cpu') })
    expect(JSON.stringify(failure.evidence.details)).toContain('FailedScheduling')
  })

  test('no node of the kind that is asked for', async () => {
    await expect(failureOf({ settings: { nodeSelector: { disk: 'none' } } })).resolves.toMatchObject({
      code: 'unschedulable',
    })
  })

  /** A quota that admission knows of: that takes a moment longer than to be stored. */
  const fillQuota = async (): Promise<AsyncDisposable> => {
    const { kube, namespace } = world
    const quotas = `/api/v1/namespaces/${namespace}/resourcequotas`
    const spec = { hard: { pods: '0' } }
    await kube.create(quotas, { apiVersion: 'v1', kind: 'ResourceQuota', metadata: { name: 'none' }, spec })
    const pod = { metadata: { name: 'try' }, spec: { containers: [{ name: 'one', image: 'registry.invalid/any:1' }] } }
    const body = { apiVersion: 'v1', kind: 'Pod', ...pod }
    const isRefusing = (): Promise<boolean> =>
      kube.create(`${pathOf('pods', namespace)}?dryRun=All`, body).then(
        () => false,
        () => true,
      )
    await eventually(isRefusing, Boolean)
    return { [Symbol.asyncDispose]: () => kube.remove(`${quotas}/none`) }
  }

  test('a quota that is used up', async () => {
    await using _quota = await fillQuota()
    const failure = await failureOf({})
    expect(failure).toMatchObject({ code: 'quota_exceeded', message: expect.stringContaining('exceeded quota') })
  })

  test.each([
    ['a priority class that does not exist', { priorityClassName: 'none' }, 'no PriorityClass'],
    [
      'a limit below the request',
      { resources: { requests: { cpu: '2' }, limits: { cpu: '1' } } },
      'must be less than or equal to cpu limit',
    ],
    ['a service account that does not exist', { serviceAccountName: 'none' }, 'serviceaccount "none" not found'],
  ])('%s is refused, in the words of the cluster', async (_what, settings, message) => {
    const failure = await failureOf({ settings })
    expect(failure).toMatchObject({ code: 'setup_failed', message: expect.stringContaining(message) })
  })

  test('what a policy of the cluster refuses', async () => {
    await using _policy = await startWebhook(world.kube, world.namespace, {
      is: 'refusal',
      message: 'only signed images',
    })
    const failure = await failureOf({})
    expect(failure).toMatchObject({ code: 'setup_failed', message: expect.stringContaining('only signed images') })
  })

  test('a policy of the cluster that is not there to be asked', async () => {
    await using _policy = await startWebhook(world.kube, world.namespace, { is: 'down' })
    const failure = await failureOf({})
    const message = expect.stringContaining('failed calling webhook')
    expect(failure).toMatchObject({ code: 'setup_failed', message })
  })

  test('what Pod Security refuses; sandboxes themselves keep to its strictest level', async () => {
    const enforce = (level: string | null): Promise<unknown> =>
      world.kube.patch(`/api/v1/namespaces/${world.namespace}`, {
        metadata: { labels: { 'pod-security.kubernetes.io/enforce': level } },
      })
    await enforce('restricted')
    await using _restricted = { [Symbol.asyncDispose]: async () => void (await enforce(null)) }
    const spec = world.spec()
    await world.driver.create(spec)
    await becomesReady(world.driver, spec.name)
    await world.driver.remove(spec.name)
    const container = { name: 'mesh', image: 'registry.invalid/mesh:1', securityContext: { privileged: true } }
    await using _mesh = await startWebhook(world.kube, world.namespace, { is: 'sidecar', container })
    const failure = await failureOf({})
    expect(failure).toMatchObject({ code: 'setup_failed', message: expect.stringContaining('violates PodSecurity') })
  })

  test('the end of any container, not of the first only', async () => {
    const container = { name: 'mesh', image: 'registry.invalid/crashes:1' }
    await using _mesh = await startWebhook(world.kube, world.namespace, { is: 'sidecar', container })
    await expect(failureOf({})).resolves.toMatchObject({
      code: 'harness_exited',
      message: 'Container mesh ended with code 1 (Error).',
    })
  })

  test('a start that takes too long says where it stands', async () => {
    const failure = await failureOf({ spec: { setupCommand: 'sleep 30' }, deadlineMs: 1_500 })
    expect(failure).toMatchObject({ code: 'start_timeout', message: expect.stringContaining('The pod runs') })
  })

  test('an object that is deleted while it starts is lost', async () => {
    const spec = world.spec({ setupCommand: 'sleep 30' })
    await world.driver.create(spec)
    const ready = becomesReady(world.driver, spec.name).catch((error: unknown) => error)
    await eventually(
      () => world.find<Pod>('pod', spec.name),
      ({ status }) => status?.phase === 'Running',
    )
    const startedAt = Date.now()
    await world.kube.remove(world.path('object', spec.name))
    await expect(ready).resolves.toMatchObject({ failure: { code: 'sandbox_lost' } })
    expect(Date.now() - startedAt).toBeLessThan(TOLD_WITHIN_MS)
  })
})
