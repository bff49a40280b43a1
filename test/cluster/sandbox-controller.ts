import { connectKube, isStatus, type Kube, readAccess } from '../../tools/cluster/kube.ts'
import { type Condition, type Pod, podOf, type Sandbox, type Service, serviceOf, statusOf } from './sandbox-objects.ts'
import { createInformer, type Informer } from './informer.ts'

/**
 * Stands in for the controller of agent-sandbox (agents.x-k8s.io/v1beta1) where that one cannot be had: the same pod, Service and status for a Sandbox, in the
 * same order. The platform under test does not know it.
 *
 * Level-based as the original: every change of a Sandbox, of its pod or of its Service puts its key in a queue, and reconciling reads what is there and makes the next
 * change towards what should be. What an owner reference does not say is left to the garbage collection of the cluster.
 */
export type SandboxController = AsyncDisposable & {
  /** Ends it in the middle of whatever it does, as a crash would: nothing is finished, nothing is written any more. */
  kill(): void
  /** Keys that failed and have not succeeded since, with the last reason; and which are being worked on. */
  troubles(): Record<string, string>
}

export type ControllerOptions = {
  kubeconfig: string
  /** The one whose Sandboxes it looks after; all of them without. */
  namespace?: string
  /** How many Sandboxes are reconciled at once. */
  workers?: number
  clusterDomain?: string
}

/** An expired Sandbox is looked at again after at least so long. */
const EXPIRY_RECHECK_MIN_MS = 2_000
const RETRY_FIRST_MS = 5
const RETRY_MAX_MS = 10_000

const POD_NAME = 'agents.x-k8s.io/pod-name'
const GROUP = '/apis/agents.x-k8s.io/v1beta1'
const keyOf = ({ metadata }: { metadata: { namespace: string; name: string } }): string =>
  `${metadata.namespace}/${metadata.name}`

const isOwnedBy = (sandbox: Sandbox, object: Pod | Service): boolean =>
  object.metadata.ownerReferences?.some(({ uid, controller }) => uid === sandbox.metadata.uid && controller === true) ??
  false

/** Removing what is gone already, or was replaced by another one of that name, is done. */
const removeIfThere = async (kube: Kube, path: string, uid: string): Promise<void> => {
  try {
    await kube.remove(path, { apiVersion: 'v1', kind: 'DeleteOptions', preconditions: { uid } })
  } catch (error) {
    if (!isStatus(error, 404, 409)) throw error
  }
}

type Caches = { sandboxes: Informer<Sandbox>; pods: Informer<Pod>; services: Informer<Service> }

const pathsOf = ({ metadata: { namespace, name } }: Sandbox) => ({
  sandbox: `${GROUP}/namespaces/${namespace}/sandboxes/${name}`,
  pods: `/api/v1/namespaces/${namespace}/pods`,
  pod: `/api/v1/namespaces/${namespace}/pods/${name}`,
  services: `/api/v1/namespaces/${namespace}/services`,
  service: `/api/v1/namespaces/${namespace}/services/${name}`,
})

const expiryOf = (sandbox: Sandbox): number =>
  sandbox.spec.shutdownTime === undefined ? Number.POSITIVE_INFINITY : Date.parse(sandbox.spec.shutdownTime)

/** @returns the pod as it is after this step; undefined when there is none */
const reconcilePod = async (kube: Kube, caches: Caches, sandbox: Sandbox): Promise<Pod | undefined> => {
  const pod = caches.pods.get(keyOf(sandbox))
  const paths = pathsOf(sandbox)
  if (sandbox.spec.operatingMode === 'Suspended') {
    if (pod === undefined || !isOwnedBy(sandbox, pod)) return pod
    if (pod.metadata.deletionTimestamp === undefined) await removeIfThere(kube, paths.pod, pod.metadata.uid)
    return pod
  }
  // One that is being deleted keeps the name; its end brings this Sandbox here again.
  if (pod !== undefined) return pod
  try {
    return await kube.create<Pod>(paths.pods, podOf(sandbox))
  } catch (error) {
    if (isStatus(error, 409)) return kube.get<Pod>(paths.pod)
    throw error
  }
}

/** Unset keeps what is there; true makes one; false removes ours. */
const reconcileService = async (kube: Kube, caches: Caches, sandbox: Sandbox): Promise<Service | undefined> => {
  const service = caches.services.get(keyOf(sandbox))
  const own = service !== undefined && isOwnedBy(sandbox, service) ? service : undefined
  const paths = pathsOf(sandbox)
  if (sandbox.spec.service === false) {
    if (own !== undefined) await removeIfThere(kube, paths.service, own.metadata.uid)
    return undefined
  }
  if (own !== undefined || sandbox.spec.service === undefined) return own
  try {
    return await kube.create<Service>(paths.services, serviceOf(sandbox))
  } catch (error) {
    if (isStatus(error, 409)) return kube.get<Service>(paths.service)
    throw error
  }
}

/** Pod and Service always go; the Sandbox goes with the policy Delete, and stays as a tombstone with Retain. */
const expire = async (kube: Kube, caches: Caches, sandbox: Sandbox): Promise<void> => {
  const paths = pathsOf(sandbox)
  const pod = caches.pods.get(keyOf(sandbox))
  const service = caches.services.get(keyOf(sandbox))
  if (pod !== undefined && isOwnedBy(sandbox, pod)) await removeIfThere(kube, paths.pod, pod.metadata.uid)
  if (service !== undefined && isOwnedBy(sandbox, service))
    await removeIfThere(kube, paths.service, service.metadata.uid)
  if (sandbox.spec.shutdownPolicy === 'Delete') await removeIfThere(kube, paths.sandbox, sandbox.metadata.uid)
}

const withoutTimes = (conditions: Condition[] = []): string =>
  JSON.stringify(conditions.map((condition) => ({ ...condition, lastTransitionTime: undefined })))

const isSameStatus = (before: Sandbox['status'], after: Sandbox['status']): boolean =>
  withoutTimes(before?.conditions) === withoutTimes(after?.conditions) &&
  ['service', 'serviceFQDN', 'selector', 'podIPs'].every(
    (key) =>
      JSON.stringify(before?.[key as keyof typeof before]) === JSON.stringify(after?.[key as keyof typeof after]),
  ) &&
  // Written together with Ready: a write for the node alone is saved.
  (before?.nodeName === after?.nodeName || after?.conditions?.find(({ type }) => type === 'Ready')?.status !== 'True')

const writeStatus = async (kube: Kube, sandbox: Sandbox, status: NonNullable<Sandbox['status']>): Promise<void> => {
  if (isSameStatus(sandbox.status, status)) return
  // A merge patch: what is no more has to be null.
  const cleared = { service: null, serviceFQDN: null, selector: null, podIPs: null, nodeName: null }
  await kube.patch(`${pathsOf(sandbox).sandbox}/status`, { status: { ...cleared, ...status } })
}

/** The Sandbox names its pod in an annotation, while it has one. */
const notePod = async (kube: Kube, sandbox: Sandbox, pod: Pod | undefined): Promise<void> => {
  const wanted = sandbox.spec.operatingMode === 'Suspended' ? undefined : pod?.metadata.name
  if (sandbox.metadata.annotations?.[POD_NAME] === wanted) return
  await kube.patch(pathsOf(sandbox).sandbox, { metadata: { annotations: { [POD_NAME]: wanted ?? null } } })
}

/** @returns when it wants to be looked at again, in ms; null: when something changes */
const reconcile = async (kube: Kube, caches: Caches, key: string, clusterDomain: string): Promise<number | null> => {
  const sandbox = caches.sandboxes.get(key)
  if (sandbox === undefined || sandbox.metadata.deletionTimestamp !== undefined) return null
  const leftMs = expiryOf(sandbox) - Date.now()
  if (leftMs <= 0) {
    await expire(kube, caches, sandbox)
    if (sandbox.spec.shutdownPolicy === 'Delete') return null
    await writeStatus(kube, sandbox, statusOf({ sandbox, clusterDomain, isExpired: true }))
    return null
  }
  try {
    const pod = await reconcilePod(kube, caches, sandbox)
    const service = await reconcileService(kube, caches, sandbox)
    const isForeign = pod !== undefined && !isOwnedBy(sandbox, pod)
    await writeStatus(kube, sandbox, statusOf({ sandbox, pod, service, clusterDomain, isForeign }))
    await notePod(kube, sandbox, isForeign ? undefined : pod)
  } catch (error) {
    // A pod that is refused (quota, admission) is seen in the status, and tried again.
    const reason = Error.isError(error) ? error.message : String(error)
    await writeStatus(kube, sandbox, statusOf({ sandbox, clusterDomain, error: reason }))
    throw error
  }
  return Number.isFinite(leftMs) ? Math.max(leftMs, EXPIRY_RECHECK_MIN_MS) : null
}

/** Keys to look at: each once, however often it is added, and none by two workers at a time. */
const createQueue = (workers: number, work: (key: string) => Promise<number | null>, signal: AbortSignal) => {
  const waiting = new Set<string>()
  const active = new Set<string>()
  const failures = new Map<string, { count: number; reason: string }>()
  const timers = new Map<string, NodeJS.Timeout>()
  const addAfter = (key: string, ms: number): void => {
    clearTimeout(timers.get(key))
    timers.set(
      key,
      setTimeout(() => add(key), Math.min(ms, 2 ** 31 - 1)),
    )
  }
  const run = async (key: string): Promise<void> => {
    try {
      const againMs = await work(key)
      failures.delete(key)
      if (againMs !== null && !signal.aborted) addAfter(key, againMs)
    } catch (error) {
      const count = failures.get(key)?.count ?? 0
      failures.set(key, { count: count + 1, reason: Error.isError(error) ? error.message : String(error) })
      if (!signal.aborted) addAfter(key, Math.min(RETRY_FIRST_MS * 2 ** count, RETRY_MAX_MS))
    }
    active.delete(key)
    next()
  }
  const next = (): void => {
    for (const key of waiting) {
      if (active.size >= workers || signal.aborted) return
      if (active.has(key)) continue
      waiting.delete(key)
      active.add(key)
      void run(key)
    }
  }
  const add = (key: string): void => {
    waiting.add(key)
    next()
  }
  signal.addEventListener('abort', () => {
    for (const timer of timers.values()) clearTimeout(timer)
  })
  const troubles = (): Record<string, string> => ({
    ...Object.fromEntries([...failures].map(([key, { count, reason }]) => [key, `${count}× ${reason}`])),
    ...Object.fromEntries([...active].map((key) => [key, 'under way'])),
  })
  return { add, troubles }
}

/** Starts it and resolves when it has seen everything that is there. */
export const startSandboxController = async (options: ControllerOptions): Promise<SandboxController> => {
  const { kubeconfig, namespace, workers = 100, clusterDomain = 'cluster.local' } = options
  const within = namespace === undefined ? '' : `/namespaces/${namespace}`
  const kube = connectKube(await readAccess(kubeconfig))
  const stopping = new AbortController()
  const { signal } = stopping
  const work = (key: string): Promise<number | null> => reconcile(kube, caches, key, clusterDomain)
  const queue = createQueue(workers, work, signal)
  const add = (object: Sandbox | Pod | Service): void => queue.add(keyOf(object))
  const caches: Caches = {
    sandboxes: createInformer<Sandbox>({ kube, path: `${GROUP}${within}/sandboxes`, onChange: add, signal }),
    pods: createInformer<Pod>({ kube, path: `/api/v1${within}/pods`, onChange: add, signal }),
    services: createInformer<Service>({ kube, path: `/api/v1${within}/services`, onChange: add, signal }),
  }
  await Promise.all([caches.pods.synced, caches.services.synced])
  await caches.sandboxes.synced
  const kill = (): void => {
    stopping.abort()
    void kube[Symbol.asyncDispose]()
  }
  return {
    kill,
    troubles: queue.troubles,
    [Symbol.asyncDispose]: async () => {
      stopping.abort()
      await kube[Symbol.asyncDispose]()
    },
  }
}
