import { getOrNull } from './cluster.ts'
import type { Cluster } from './cluster.ts'
import { ANNOTATION } from './names.ts'
import { pathOf, resourceOf } from './objects.ts'
import type { Node, Pod, Sandbox } from './objects.ts'
import { nodeVerdict, verdictOf } from './status.ts'
import type { Seen } from './status.ts'

/**
 * Asks the API server whether a sandbox that looks lost is: copies of two kinds may be of different age, and then look like a loss together. It asks for no more than that
 * takes, because a node takes a hundred sandboxes with it.
 * @returns function that rejects while it is not known
 */
export const createConfirm = (cluster: Cluster): ((name: string) => Promise<boolean>) => {
  const { client, settings, nodesKnown } = cluster
  const { api, namespace } = settings
  const reads = new Map<string, Promise<Node | null>>()
  /** One request for all who ask at a time. */
  const readNode = (name: string): Promise<Node | null> => {
    const read =
      reads.get(name) ?? getOrNull<Node>(client, pathOf('nodes', namespace, name)).finally(() => reads.delete(name))
    reads.set(name, read)
    return read
  }
  const withNode = async (seen: Seen): Promise<Seen> => {
    const name = seen.pod?.spec?.nodeName
    const node = name === undefined || !nodesKnown() ? null : await readNode(name)
    return { ...seen, node: node ?? undefined, nodesKnown: nodesKnown() }
  }
  /** A pod never leaves its node: with that it is lost, whatever else became of it since the copy was made. */
  const isLostWithNode = async (seen: Seen): Promise<boolean> => {
    const uid = seen.object?.metadata.annotations?.[ANNOTATION.podUid]
    if (uid === undefined || seen.pod?.metadata.uid !== uid || nodeVerdict(seen) === null) return false
    return nodeVerdict(await withNode(seen)) !== null
  }

  return async (name) => {
    if (await isLostWithNode(cluster.seen(name))) return true
    const [object, plain] = await Promise.all([
      getOrNull<Sandbox & Pod>(client, pathOf(resourceOf(api), namespace, name)),
      api === 'pod' ? null : getOrNull<Pod>(client, pathOf('pods', namespace, name)),
    ])
    const pod = api === 'pod' ? object : plain
    const seen: Seen = { api, object: object ?? undefined, pod: pod ?? undefined, node: undefined, nodesKnown: false }
    return verdictOf(await withNode(seen), { unschedulableMs: 0 }).is === 'failed'
  }
}
