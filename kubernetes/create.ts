import pLimit from 'p-limit'
import { AppError } from '../domain/errors.ts'
import { SandboxFailedError } from '../sandbox/driver.ts'
import type { SandboxSpec } from '../sandbox/driver.ts'
import type { KubeCall } from './client.ts'
import { getOrNull } from './cluster.ts'
import type { Cluster } from './cluster.ts'
import { hasStatus, isKubeError, refusalOf, unavailable } from './errors.ts'
import { objectOf, serviceOf } from './manifest.ts'
import { LABEL, MANAGED_BY } from './names.ts'
import { pathOf, resourceOf } from './objects.ts'
import type { KubeObject } from './objects.ts'

const readyzMs = 2_000
/**
 * The API server takes addresses and ports of Services from two lists, which each create reads and writes as a whole: those at once collide and begin again. It also
 * takes them before it looks whether the Service is there, so that a create given up too early, and tried again, is work without end.
 */
const servicesAtOnce = pLimit(4)
const serviceTimes = { timeoutMs: 30_000, tryTimeoutMs: 20_000 }

/** Whether an object belongs to this installation. Names alone prove nothing. */
export const isOurs = (object: KubeObject, instance: string): boolean =>
  object.metadata.labels?.[LABEL.managedBy] === MANAGED_BY && object.metadata.labels[LABEL.instance] === instance

/** What the API server refuses for good is a failure with a code; anything else is worth another try. */
const rejected = (error: unknown, what: string): unknown => {
  if (!isKubeError(error)) return error
  const code = refusalOf(error.status, error.message)
  const missing = error.status === 404
  if (code === null && !missing) return error
  const message = missing
    ? `${what}: the cluster does not know this kind, or the namespace is missing: ${error.message}`
    : `${what}: ${error.message}`
  const evidence = { exists: false, error: error.message, details: { status: error.status, reason: error.reason } }
  return new SandboxFailedError({ code: code ?? 'setup_failed', message, evidence })
}

const lacksRight = (error: unknown): boolean =>
  isKubeError(error) && error.status === 403 && error.message.includes('cannot create resource')

/** An API server that has just started refuses everybody until it has read its roles, and is not ready until then. Everybody may ask it. */
const isReady = (cluster: Cluster): Promise<boolean> =>
  cluster.client.text({ path: '/readyz', timeoutMs: readyzMs }).then(
    () => true,
    () => false,
  )

type Post = Pick<KubeCall, 'path' | 'timeoutMs' | 'tryTimeoutMs'> & { body: object }

const post = async <T>(cluster: Cluster, call: Post): Promise<T> => {
  const send = (): Promise<T> => cluster.client.json<T>({ method: 'POST', ...call })
  try {
    return await send()
  } catch (error) {
    if (!lacksRight(error)) throw error
    if (!(await isReady(cluster))) throw unavailable('the Kubernetes API server is starting', error)
    // It may have become so only now.
    return send()
  }
}

/** The object, made by this call or by an earlier one of the same name. */
const createObject = async (cluster: Cluster, spec: SandboxSpec): Promise<KubeObject> => {
  const { client, settings } = cluster
  const path = pathOf(resourceOf(settings.api), settings.namespace)
  try {
    return await post<KubeObject>(cluster, { path, body: objectOf(spec, settings) })
  } catch (error) {
    if (!hasStatus(error, 409)) throw rejected(error, 'the sandbox was refused')
    const found = await getOrNull<KubeObject>(client, `${path}/${spec.name}`)
    if (found === null)
      throw new AppError('unavailable', `sandbox ${spec.name} was there and is gone`, { cause: error })
    if (!isOurs(found, settings.instance))
      throw new AppError('invalid', `${spec.name} exists and belongs to somebody else`)
    return found
  }
}

/** Makes the object, and with it, where that is the way in, a Service that goes when it goes. Both may be there already. */
export const createSandbox = async (cluster: Cluster, spec: SandboxSpec): Promise<void> => {
  const { settings, access, services } = cluster
  const { metadata } = await createObject(cluster, spec)
  if (access.by !== 'nodeport' || metadata.uid === undefined || metadata.deletionTimestamp !== undefined) return
  if (services?.get(spec.name) !== undefined) return
  try {
    const body = serviceOf(spec, settings, { uid: metadata.uid, anyNode: access.nodeHost !== null })
    const path = pathOf('services', settings.namespace)
    await servicesAtOnce(() => post(cluster, { path, body, ...serviceTimes }))
  } catch (error) {
    if (hasStatus(error, 409)) return
    throw rejected(error, 'the Service of the sandbox was refused')
  }
}
