import type { KubeClient } from '../kubernetes/client.ts'
import type { Cluster } from '../kubernetes/cluster.ts'
import type { Informer } from '../kubernetes/informer.ts'
import type { KubeObject, Node, Pod } from '../kubernetes/objects.ts'
import { createStore } from '../kubernetes/store.ts'
import type { Store } from '../kubernetes/store.ts'

const informerOf = <T extends KubeObject>(store: Store<T>): Informer<T> => ({
  get: (name) => store.objects.get(name),
  all: () => [...store.objects.values()],
  onChange: (listener) => {
    store.listeners.add(listener)
    return () => store.listeners.delete(listener)
  },
  synced: async () => undefined,
  wasAway: () => false,
})

export type CopiedCluster = { cluster: Cluster; objects: Store<KubeObject>; pods: Store<Pod>; nodes: Store<Node> }

/** A cluster of Sandboxes in namespace `sandboxes`, reached by pod address, whose copies a test fills. What is asked goes to the client. Of nodes it knows from the first one on. */
export const createCopiedCluster = (client: KubeClient): CopiedCluster => {
  const objects = createStore<KubeObject>()
  const pods = createStore<Pod>()
  const nodes = createStore<Node>()
  const nodesKnown = (): boolean => nodes.objects.size > 0
  const cluster: Cluster = {
    client,
    settings: { api: 'sandbox', namespace: 'sandboxes', instance: 'lap' } as Cluster['settings'],
    access: { by: 'pod-ip' },
    objects: informerOf(objects),
    pods: informerOf(pods),
    services: null,
    nodes: informerOf(nodes),
    readNodes: () => undefined,
    nodesKnown,
    wasAway: () => false,
    seen(name) {
      const pod = pods.objects.get(name)
      const node = nodes.objects.get(pod?.spec?.nodeName ?? '')
      return { api: 'sandbox', object: objects.objects.get(name), pod, node, nodesKnown: nodesKnown() }
    },
    onChange(listener) {
      const of = ({ object }: { object: KubeObject }): void => listener(object.metadata.name)
      const ofNode = ({ object }: { object: Node }): void => {
        for (const { metadata, spec } of pods.objects.values())
          if (spec?.nodeName === object.metadata.name) listener(metadata.name)
      }
      objects.listeners.add(of)
      pods.listeners.add(of)
      nodes.listeners.add(ofNode)
      return () => {
        objects.listeners.delete(of)
        pods.listeners.delete(of)
        nodes.listeners.delete(ofNode)
      }
    },
    synced: async () => undefined,
  }
  return { cluster, objects, pods, nodes }
}
