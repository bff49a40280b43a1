import pLimit from 'p-limit'
import { AppError } from '../domain/errors.ts'
import { SandboxFailedError } from '../sandbox/driver.ts'
import type { SandboxSpec } from '../sandbox/driver.ts'
import { getOrNull } from './cluster.ts'
import type { Cluster } from './cluster.ts'
import { hasStatus } from './errors.ts'
import { objectOf, ownerOf, serviceOf } from './manifest.ts'
import { LABEL } from './names.ts'
import { pathOf, resourceOf } from './objects.ts'
import type { KubeObject } from './objects.ts'
import { createPolicy, ownPolicy } from './policy.ts'
import { isOurs, rejected, write } from './write.ts'

/**
 * The API server takes addresses and ports of Services from two lists, which each create reads and writes as a whole: those at once collide and begin again. It also
 * takes them before it looks whether the Service is there, so that a create given up too early, and tried again, is work without end.
 */
const servicesAtOnce = pLimit(4)
const serviceTimes = { timeoutMs: 30_000, tryTimeoutMs: 20_000 }

/** The object, made by this call or by an earlier one of the same name. */
const createObject = async (cluster: Cluster, spec: SandboxSpec): Promise<KubeObject> => {
  const { client, settings } = cluster
  const path = pathOf(resourceOf(settings.api), settings.namespace)
  try {
    return await write<KubeObject>(cluster, { method: 'POST', path, body: objectOf(spec, settings) })
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

/** The Service, where that is the way in. */
const createService = async (cluster: Cluster, spec: SandboxSpec, uid: string): Promise<void> => {
  const { settings, access, services } = cluster
  if (access.by !== 'nodeport' || services?.get(spec.name) !== undefined) return
  try {
    const body = serviceOf(spec, settings, { uid, anyNode: access.nodeHost !== null })
    const path = pathOf('services', settings.namespace)
    await servicesAtOnce(() => write(cluster, { method: 'POST', path, body, ...serviceTimes }))
  } catch (error) {
    if (hasStatus(error, 409)) return
    throw rejected(error, 'the Service of the sandbox was refused')
  }
}

/** One that was made before its agent had such rules is open by the policies of the installation, whatever its own says. */
const assertHeld = ({ metadata }: KubeObject): void => {
  if (metadata.labels?.[LABEL.egress] === 'own') return
  const message = 'The egress rules of its agent have changed while it started'
  throw new SandboxFailedError({ code: 'setup_failed', message, evidence: { exists: true } })
}

/** Makes the object, and with it what goes when it goes: before it a policy, after it a Service, where it needs them. All may be there already. */
export const createSandbox = async (cluster: Cluster, spec: SandboxSpec): Promise<void> => {
  const policy = await createPolicy(cluster, spec)
  const object = await createObject(cluster, spec)
  const { uid, deletionTimestamp } = object.metadata
  if (uid === undefined || deletionTimestamp !== undefined) return
  if (policy !== null) {
    await ownPolicy(cluster, policy, ownerOf(cluster.settings.api, spec.name, uid))
    assertHeld(object)
  }
  await createService(cluster, spec, uid)
}
