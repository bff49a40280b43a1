import { hasStatus, isKubeError } from './errors.ts'
import type { KubeClient } from './client.ts'
import { createInformer } from './informer.ts'
import type { Informer } from './informer.ts'
import type { PodSettings } from './manifest.ts'
import { selectorOf } from './names.ts'
import { pathOf, resourceOf } from './objects.ts'
import type { KubeObject, Node, Pod, Service } from './objects.ts'
import type { Seen } from './status.ts'

/** How supervisors are reached: through a port of the pod's node, or at the pod's own address. */
export type Access = { by: 'pod-ip' } | { by: 'nodeport'; nodeHost: string | null }

/** One cluster as this process sees it: a client, and copies of what belongs to this installation. */
export type Cluster = {
  client: KubeClient
  settings: PodSettings
  access: Access
  /** `Sandbox` objects, or with `pod` the pods themselves. */
  objects: Informer<KubeObject>
  pods: Informer<Pod>
  /** null: there are none. */
  services: Informer<Service> | null
  /** null: nodes may not be read. */
  nodes: Informer<Node> | null
  seen(name: string): Seen
  /** Told of the name of each sandbox of which anything has changed. @returns function that ends it */
  onChange(listener: (name: string) => void): () => void
  synced(signal?: AbortSignal): Promise<void>
}

export type ClusterOptions = {
  client: KubeClient
  settings: PodSettings
  access: Access
  mayReadNodes: boolean
  signal: AbortSignal
  onTrouble?: (reason: string) => void
}

export const createCluster = (options: ClusterOptions): Cluster => {
  const { client, settings, access, signal } = options
  const { api, namespace, instance } = settings
  const watched = <T extends KubeObject>(resource: Parameters<typeof pathOf>[0], labelSelector?: string): Informer<T> =>
    createInformer<T>({
      client,
      path: pathOf(resource, namespace),
      signal,
      ...(labelSelector === undefined ? {} : { labelSelector }),
      onTrouble: (reason) => options.onTrouble?.(`${resource}: ${reason}`),
    })
  const ours = selectorOf(instance)
  const pods = watched<Pod>('pods', ours)
  const objects: Informer<KubeObject> = api === 'pod' ? pods : watched(resourceOf(api), ours)
  const services = access.by === 'nodeport' ? watched<Service>('services', ours) : null
  const nodes = options.mayReadNodes ? watched<Node>('nodes') : null
  let nodesKnown = false
  void nodes?.synced().then(
    () => (nodesKnown = true),
    () => undefined,
  )

  const readiness = (node: Node | undefined): string | undefined =>
    node?.status?.conditions?.find(({ type }) => type === 'Ready')?.status

  return {
    client,
    settings,
    access,
    objects,
    pods,
    services,
    nodes,
    seen(name) {
      const pod = pods.get(name)
      const nodeName = pod?.spec?.nodeName
      return {
        api,
        object: objects.get(name),
        pod,
        node: nodeName === undefined ? undefined : nodes?.get(nodeName),
        nodesKnown,
      }
    },
    onChange(listener) {
      const of = ({ object }: { object: KubeObject }): void => listener(object.metadata.name)
      const stops = [pods.onChange(of)]
      if (objects !== (pods as Informer<KubeObject>)) stops.push(objects.onChange(of))
      if (services !== null) stops.push(services.onChange(of))
      // A node says every few seconds that it lives; only whether it does matters.
      if (nodes !== null)
        stops.push(
          nodes.onChange(({ type, object, before }) => {
            if (type === 'set' && before !== undefined && readiness(before) === readiness(object)) return
            for (const pod of pods.all()) if (pod.spec?.nodeName === object.metadata.name) listener(pod.metadata.name)
          }),
        )
      return () => {
        for (const stop of stops) stop()
      }
    },
    async synced(until) {
      const all = [objects, pods, services, nodes].filter((informer) => informer !== null)
      await Promise.all(all.map((informer) => informer.synced(until)))
    },
  }
}

/** @returns null when there is none */
export const getOrNull = async <T>(client: Pick<KubeClient, 'json'>, path: string): Promise<T | null> => {
  try {
    return await client.json<T>({ path })
  } catch (error) {
    if (isKubeError(error) && hasStatus(error, 404)) return null
    throw error
  }
}
