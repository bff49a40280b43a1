import { AppError } from '../domain/errors.ts'
import { getOrNull } from './cluster.ts'
import type { Cluster } from './cluster.ts'
import { hasStatus } from './errors.ts'
import { LABEL } from './names.ts'
import { pathOf, resourceOf } from './objects.ts'
import type { KubeObject, Resource } from './objects.ts'
import { isOurs } from './write.ts'

type Deletable = { resource: Resource; found: KubeObject }

/** Made with `K8S_SANDBOX_API=sandbox`: its controller would make the pod again, for ever. */
const isMadeAgain = ({ api }: Cluster['settings'], { resource, found }: Deletable): boolean =>
  api === 'pod' && resource === 'pods' && (found.metadata.ownerReferences ?? []).some(({ kind }) => kind === 'Sandbox')

/** Deletes one object, if it is ours; what it owns follows. Names are never used twice, so another UID means that it is gone. */
const deleteFound = async ({ client, settings }: Cluster, { resource, found }: Deletable): Promise<void> => {
  const { name } = found.metadata
  if (!isOurs(found, settings.instance)) throw new AppError('conflict', `${resource} ${name} belongs to somebody else`)
  if (isMadeAgain(settings, { resource, found }))
    throw new AppError(
      'conflict',
      `pod ${name} belongs to a Sandbox object, which would make it again: set K8S_SANDBOX_API=sandbox until such are gone, or delete sandbox ${name}`,
    )
  const body = {
    apiVersion: 'v1',
    kind: 'DeleteOptions',
    propagationPolicy: 'Background',
    preconditions: { uid: found.metadata.uid },
  }
  try {
    await client.json({ method: 'DELETE', path: pathOf(resource, settings.namespace, name), body })
  } catch (error) {
    if (!hasStatus(error, 404, 409)) throw error
  }
}

/** @returns what was there; null: nothing */
const deleteObject = async (cluster: Cluster, resource: Resource, name: string): Promise<KubeObject | null> => {
  const found = await getOrNull<KubeObject>(cluster.client, pathOf(resource, cluster.settings.namespace, name))
  if (found !== null) await deleteFound(cluster, { resource, found })
  return found
}

/**
 * As long as something of the sandbox runs its policy has to stay: it goes with its owners.
 * @param ending what is being deleted; null: nothing is left
 */
const deletePolicy = async (cluster: Cluster, name: string, ending: KubeObject | null): Promise<void> => {
  if (ending !== null && ending.metadata.labels?.[LABEL.egress] !== 'own') return
  const path = pathOf('networkpolicies', cluster.settings.namespace, name)
  const found = await getOrNull<KubeObject>(cluster.client, path).catch((error: unknown) => {
    // Who may not look at policies has made none.
    if (hasStatus(error, 403)) return null
    throw error
  })
  const isOwned = (found?.metadata.ownerReferences ?? []).length > 0
  if (found !== null && (ending === null || !isOwned))
    await deleteFound(cluster, { resource: 'networkpolicies', found })
}

/** Resolves when the API server has accepted the deletion; pod, Service and policy also go by their owner, should this process die between. */
export const removeSandbox = async (cluster: Cluster, name: string): Promise<void> => {
  const { settings, access } = cluster
  const object = await deleteObject(cluster, resourceOf(settings.api), name)
  // A pod whose owner is gone already, and with it whoever would have ended it.
  const pod = object === null && settings.api === 'sandbox' ? await deleteObject(cluster, 'pods', name) : null
  if (access.by === 'nodeport') await deleteObject(cluster, 'services', name)
  await deletePolicy(cluster, name, object ?? pod)
}
