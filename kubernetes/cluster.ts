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
  readonly nodes: Informer<Node> | null
  /** From now on nodes may be read. */
  readNodes(): void
  /** Whether what is known of nodes says something of them. */
  nodesKnown(): boolean
  seen(name: string): Seen
  /** Whether the API server was away a moment ago: until nodes have written again, no pod finds one. */
  wasAway(): boolean
  /** Told of the name of each sandbox of which anything has changed. @returns function that ends it */
  onChange(listener: (name: string) => void): () => void
  synced(signal?: AbortSignal): Promise<void>
}

/**
 * Nodes say by way of the API server that they live: when that was away, all look dead for a moment. Kubelets renew their leases every 10 s, and try again after at
 * most 7 s.
 */
export const nodeDoubtMs = 60_000

export type ClusterOptions = {
  client: KubeClient
  settings: PodSettings
  access: Access
  mayReadNodes: boolean
  signal: AbortSignal
  onTrouble?: (reason: string) => void
}

const readiness = (node: Node | undefined): string | undefined =>
  node?.status?.conditions?.find(({ type }) => type === 'Ready')?.status

type Copies = Pick<Cluster, 'objects' | 'pods' | 'services'>

/** Tells of each sandbox of which an object has changed. @returns function that ends it */
const listen = ({ objects, pods, services }: Copies, listener: (name: string) => void): (() => void) => {
  const of = ({ object }: { object: KubeObject }): void => listener(object.metadata.name)
  const stops = [pods.onChange(of)]
  if (objects !== (pods as Informer<KubeObject>)) stops.push(objects.onChange(of))
  if (services !== null) stops.push(services.onChange(of))
  return () => {
    for (const stop of stops) stop()
  }
}

type NodesOptions = { watch: () => Informer<Node>; pods: Informer<Pod>; tellOf: (pods: Pod[]) => void }

/** The copy of the nodes, which begins when they may be read. */
const createNodes = ({ watch, pods, tellOf }: NodesOptions) => {
  let copy: Informer<Node> | null = null
  let isListed = false
  return {
    copy: () => copy,
    known: (): boolean => copy !== null && isListed && !copy.wasAway(nodeDoubtMs),
    read(): void {
      if (copy !== null) return
      copy = watch()
      // A node says every few seconds that it lives; only whether it does matters.
      copy.onChange(({ type, object, before }) => {
        if (type === 'set' && before !== undefined && readiness(before) === readiness(object)) return
        tellOf(pods.all().filter(({ spec }) => spec?.nodeName === object.metadata.name))
      })
      const listed = (): void => {
        isListed = true
        // Of a node that is not in the list nobody tells.
        tellOf(pods.all())
      }
      copy.synced().then(listed, () => undefined)
    },
  }
}

export const createCluster = (options: ClusterOptions): Cluster => {
  const { client, settings, access, signal } = options
  const { api, namespace, instance } = settings
  const listeners = new Set<(name: string) => void>()
  const tellOf = (some: Pod[]): void => {
    for (const { metadata } of some) for (const listener of listeners) listener(metadata.name)
  }
  /** What was doubtful is looked at again. */
  const lookAgain = (): void => {
    const timer = setTimeout(() => tellOf(pods.all()), nodeDoubtMs)
    signal.addEventListener('abort', () => clearTimeout(timer), { once: true })
  }
  const watched = <T extends KubeObject>(resource: Parameters<typeof pathOf>[0], labelSelector?: string): Informer<T> =>
    createInformer<T>({
      client,
      path: pathOf(resource, namespace),
      signal,
      ...(resource === 'nodes' ? { onReturn: lookAgain } : {}),
      ...(labelSelector === undefined ? {} : { labelSelector }),
      onTrouble: (reason) => options.onTrouble?.(`${resource}: ${reason}`),
    })
  const ours = selectorOf(instance)
  const pods = watched<Pod>('pods', ours)
  const objects: Informer<KubeObject> = api === 'pod' ? pods : watched(resourceOf(api), ours)
  const services = access.by === 'nodeport' ? watched<Service>('services', ours) : null
  const nodes = createNodes({ watch: () => watched<Node>('nodes'), pods, tellOf })
  if (options.mayReadNodes) nodes.read()

  return {
    client,
    settings,
    access,
    objects,
    pods,
    services,
    get nodes() {
      return nodes.copy()
    },
    readNodes: nodes.read,
    nodesKnown: nodes.known,
    wasAway: () => pods.wasAway(nodeDoubtMs),
    seen(name) {
      const pod = pods.get(name)
      const nodeName = pod?.spec?.nodeName
      return {
        api,
        object: objects.get(name),
        pod,
        node: nodeName === undefined ? undefined : nodes.copy()?.get(nodeName),
        nodesKnown: nodes.known(),
      }
    },
    onChange: (listener) => {
      listeners.add(listener)
      const stop = listen({ objects, pods, services }, listener)
      return () => {
        listeners.delete(listener)
        stop()
      }
    },
    async synced(until) {
      const all = [objects, pods, services, nodes.copy()].filter((informer) => informer !== null)
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
