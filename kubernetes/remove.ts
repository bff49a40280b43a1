import { AppError } from '../domain/errors.ts'
import { getOrNull } from './cluster.ts'
import type { Cluster } from './cluster.ts'
import { isOurs } from './create.ts'
import { hasStatus } from './errors.ts'
import { pathOf, resourceOf } from './objects.ts'
import type { KubeObject, Resource } from './objects.ts'

/** Deletes one object, if it is there and ours; what it owns follows. Names are never used twice, so another UID means that it is gone. @returns whether it was there */
const deleteObject = async (cluster: Cluster, resource: Resource, name: string): Promise<boolean> => {
  const { client, settings } = cluster
  const path = pathOf(resource, settings.namespace, name)
  const found = await getOrNull<KubeObject>(client, path)
  if (found === null) return false
  if (!isOurs(found, settings.instance)) throw new AppError('conflict', `${resource} ${name} belongs to somebody else`)
  const body = {
    apiVersion: 'v1',
    kind: 'DeleteOptions',
    propagationPolicy: 'Background',
    preconditions: { uid: found.metadata.uid },
  }
  try {
    await client.json({ method: 'DELETE', path, body })
  } catch (error) {
    if (!hasStatus(error, 404, 409)) throw error
  }
  return true
}

/** Resolves when the API server has accepted the deletion; pod and Service also go by their owner, should this process die between. */
export const removeSandbox = async (cluster: Cluster, name: string): Promise<void> => {
  const { settings, access } = cluster
  const was = await deleteObject(cluster, resourceOf(settings.api), name)
  // A pod whose owner is gone already, and with it whoever would have ended it.
  if (!was && settings.api === 'sandbox') await deleteObject(cluster, 'pods', name)
  if (access.by === 'nodeport') await deleteObject(cluster, 'services', name)
}
