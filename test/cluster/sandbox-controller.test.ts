import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { isStatus, type Kube } from '../../tools/cluster/kube.ts'
import { makeNamespace } from './namespace.ts'
import { type SandboxController, startSandboxController } from './sandbox-controller.ts'
import type { Pod, Sandbox, Service } from './sandbox-objects.ts'
import { hasOwnController } from './sandboxes-crd.ts'
import { connectShared, sharedKubeconfig, sharedPlacement } from './shared.ts'

let namespace: string
let SANDBOXES: string
let PODS: string
let SERVICES: string
let kube: Kube
/** null where the cluster has the real one, which has to do the same. */
let controller: SandboxController | null = null

const startController = async (): Promise<SandboxController | null> =>
  (await hasOwnController(kube))
    ? null
    : startSandboxController({ kubeconfig: sharedKubeconfig().controller, namespace })

beforeAll(async () => {
  kube = await connectShared('tester')
  namespace = await makeNamespace(kube)
  SANDBOXES = `/apis/agents.x-k8s.io/v1beta1/namespaces/${namespace}/sandboxes`
  PODS = `/api/v1/namespaces/${namespace}/pods`
  SERVICES = `/api/v1/namespaces/${namespace}/services`
  controller = await startController()
})

afterAll(async () => {
  await controller?.[Symbol.asyncDispose]()
  await kube.remove(`/api/v1/namespaces/${namespace}`)
  await kube?.[Symbol.asyncDispose]()
})

const sandbox = (name: string, spec: Partial<Sandbox['spec']> = {}, image = 'registry.invalid/agent:1'): object => ({
  apiVersion: 'agents.x-k8s.io/v1beta1',
  kind: 'Sandbox',
  metadata: { name },
  spec: {
    podTemplate: {
      metadata: { labels: { color: 'blue' } },
      spec: {
        ...sharedPlacement(),
        restartPolicy: 'Never',
        containers: [{ name: 'agent', image, ports: [{ containerPort: 8080 }] }],
      },
    },
    ...spec,
  },
})

/** What it is when it fulfils the condition, asked for again and again. */
const eventually = async <T>(path: string, isSo: (object: T) => boolean): Promise<T> => {
  const deadline = Date.now() + 20_000
  for (;;) {
    let last: unknown
    try {
      const object = await kube.get<T>(path)
      if (isSo(object)) return object
      last = object
    } catch (error) {
      if (!isStatus(error, 404)) throw error
      last = error
    }
    if (Date.now() > deadline) throw new Error(`${path} did not become so: ${JSON.stringify(last)}`)
    await sleep(20)
  }
}

const eventuallyGone = async (path: string): Promise<void> => {
  const deadline = Date.now() + 20_000
  for (;;) {
    try {
      await kube.get(path)
    } catch (error) {
      if (isStatus(error, 404)) return
      throw error
    }
    if (Date.now() > deadline) throw new Error(`${path} is still there`)
    await sleep(20)
  }
}

const conditionOf = ({ status }: Sandbox, type: string) =>
  status?.conditions?.find((condition) => condition.type === type)
const isReady = (object: Sandbox): boolean => conditionOf(object, 'Ready')?.status === 'True'
const isNotReadyFor =
  (reason: string) =>
  (object: Sandbox): boolean => {
    const ready = conditionOf(object, 'Ready')
    return ready?.status === 'False' && ready.reason === reason
  }

test('a sandbox gets a pod of its name and is ready when the pod is', async () => {
  await kube.create(SANDBOXES, sandbox('plain'))
  const ready = await eventually<Sandbox>(`${SANDBOXES}/plain`, isReady)
  const pod = await kube.get<Pod>(`${PODS}/plain`)
  expect(ready.status?.podIPs).toEqual(pod.status?.podIPs?.map(({ ip }) => ip))
  expect(ready.status?.nodeName).toBe(pod.spec.nodeName)
  expect(conditionOf(ready, 'Ready')?.reason).toBe('DependenciesReady')
  expect(conditionOf(ready, 'Suspended')).toMatchObject({ status: 'False', reason: 'NotSuspended' })
  expect(conditionOf(ready, 'PodScheduled')).toMatchObject({ status: 'True' })
  expect(pod.metadata.labels).toMatchObject({ color: 'blue' })
  expect(pod.metadata.ownerReferences).toMatchObject([{ uid: ready.metadata.uid, controller: true }])
})

test('a pod that is deleted comes again, and one that has failed does not', async () => {
  await kube.create(SANDBOXES, sandbox('deleted'))
  await eventually<Sandbox>(`${SANDBOXES}/deleted`, isReady)
  const { metadata } = await kube.get<Pod>(`${PODS}/deleted`)
  await kube.remove(`${PODS}/deleted`)
  await eventually<Pod>(`${PODS}/deleted`, (pod) => pod.metadata.uid !== metadata.uid)
  await eventually<Sandbox>(`${SANDBOXES}/deleted`, isReady)

  await kube.create(SANDBOXES, sandbox('failed', {}, 'registry.invalid/crashes:1'))
  const failed = await eventually<Sandbox>(`${SANDBOXES}/failed`, isNotReadyFor('PodFailed'))
  expect(conditionOf(failed, 'Finished')).toMatchObject({ status: 'True', reason: 'PodFailed' })
  const before = await kube.get<Pod>(`${PODS}/failed`)
  await sleep(500)
  expect((await kube.get<Pod>(`${PODS}/failed`)).metadata.uid).toBe(before.metadata.uid)
})

test('with a sandbox, its pod and its service go', async () => {
  await kube.create(SANDBOXES, sandbox('owner', { service: true }))
  await eventually<Sandbox>(`${SANDBOXES}/owner`, isReady)
  await kube.remove(`${SANDBOXES}/owner`)
  await eventuallyGone(`${PODS}/owner`)
  await eventuallyGone(`${SERVICES}/owner`)
})

test('a service is made when asked for, kept when not spoken of, and removed when refused', async () => {
  await kube.create(SANDBOXES, sandbox('served', { service: true }))
  const served = await eventually<Sandbox>(`${SANDBOXES}/served`, isReady)
  expect(served.status).toMatchObject({ service: 'served', serviceFQDN: `served.${namespace}.svc.cluster.local` })
  const { metadata, spec } = await kube.get<Service>(`${SERVICES}/served`)
  expect(spec).toMatchObject({ clusterIP: 'None', ports: [{ port: 8080 }] })

  await kube.patch(`${SANDBOXES}/served`, {
    spec: { service: null, podTemplate: { metadata: { labels: { a: 'b' } } } },
  })
  await sleep(500)
  expect((await kube.get<Service>(`${SERVICES}/served`)).metadata.uid).toBe(metadata.uid)

  await kube.patch(`${SANDBOXES}/served`, { spec: { service: false } })
  await eventuallyGone(`${SERVICES}/served`)
  const unserved = await eventually<Sandbox>(`${SANDBOXES}/served`, ({ status }) => status?.service === undefined)
  expect(unserved.status?.serviceFQDN).toBeUndefined()
})

test('a suspended sandbox has no pod and gets a new one when it is resumed', async () => {
  await kube.create(SANDBOXES, sandbox('sleeper'))
  await eventually<Sandbox>(`${SANDBOXES}/sleeper`, isReady)
  await kube.patch(`${SANDBOXES}/sleeper`, { spec: { operatingMode: 'Suspended' } })
  const suspended = await eventually<Sandbox>(
    `${SANDBOXES}/sleeper`,
    (object) => conditionOf(object, 'Suspended')?.reason === 'PodTerminated',
  )
  expect(conditionOf(suspended, 'Ready')).toMatchObject({ status: 'False', reason: 'SandboxSuspended' })
  await eventuallyGone(`${PODS}/sleeper`)
  await kube.patch(`${SANDBOXES}/sleeper`, { spec: { operatingMode: 'Running' } })
  await eventually<Sandbox>(`${SANDBOXES}/sleeper`, isReady)
})

test('at its shutdown time a sandbox loses its pod, and is kept or removed as its policy says', async () => {
  const shutdownTime = new Date(Date.now() + 3_000).toISOString()
  await kube.create(SANDBOXES, sandbox('kept', { shutdownTime }))
  await kube.create(SANDBOXES, sandbox('removed', { shutdownTime, shutdownPolicy: 'Delete' }))
  const kept = await eventually<Sandbox>(`${SANDBOXES}/kept`, isNotReadyFor('SandboxExpired'))
  expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(shutdownTime) - 1_000)
  expect(kept.status?.podIPs).toBeUndefined()
  await eventuallyGone(`${PODS}/kept`)
  await eventuallyGone(`${SANDBOXES}/removed`)
  await eventuallyGone(`${PODS}/removed`)
})

test('a pod that the quota refuses is told of, and made when there is room', async () => {
  const quota = { apiVersion: 'v1', kind: 'ResourceQuota', metadata: { name: 'none' }, spec: { hard: { pods: '0' } } }
  const QUOTAS = `/api/v1/namespaces/${namespace}/resourcequotas`
  await kube.create(QUOTAS, quota)
  await eventually<{ status?: { hard?: object } }>(`${QUOTAS}/none`, ({ status }) => status?.hard !== undefined)
  await kube.create(SANDBOXES, sandbox('refused'))
  const refused = await eventually<Sandbox>(`${SANDBOXES}/refused`, isNotReadyFor('ReconcilerError'))
  expect(conditionOf(refused, 'Ready')?.message).toContain('exceeded quota')
  await kube.remove(`${QUOTAS}/none`)
  await eventually<Sandbox>(`${SANDBOXES}/refused`, isReady)
})

test('a controller that comes back makes up for what it missed', async () => {
  if (controller === null) return
  controller.kill()
  await kube.create(SANDBOXES, sandbox('missed'))
  await sleep(300)
  expect((await kube.get<Sandbox>(`${SANDBOXES}/missed`)).status).toBeUndefined()
  controller = await startController()
  await eventually<Sandbox>(`${SANDBOXES}/missed`, isReady)
})
