import type { ListedSandbox } from '../sandbox/driver.ts'
import type { Cluster } from './cluster.ts'
import { hasStatus } from './errors.ts'
import { ANNOTATION, LABEL, selectorOf } from './names.ts'
import { pathOf, resourceOf } from './objects.ts'
import type { KubeObject, Node, Pod, Resource } from './objects.ts'
import { listAll } from './pages.ts'
import { verdictOf } from './status.ts'

const read = async <T extends KubeObject>({ client, settings }: Cluster, resource: Resource): Promise<T[]> => {
  const path = pathOf(resource, settings.namespace)
  const labelSelector = resource === 'nodes' ? undefined : selectorOf(settings.instance)
  return (await listAll<T>(client, { path, labelSelector })).items
}

/** Who may not look at policies has made none. */
const readPolicies = (cluster: Cluster): Promise<KubeObject[]> =>
  read<KubeObject>(cluster, 'networkpolicies').catch((error: unknown) => {
    if (hasStatus(error, 403)) return []
    throw error
  })

const byName = <T extends KubeObject>(items: T[]): Map<string, T> =>
  new Map(items.map((item) => [item.metadata.name, item]))

const labelOf = (object: KubeObject, label: string): string | undefined => object.metadata.labels?.[label]

/** Budgets look at the pod, its controller at the object: what is marked has to stand on both. */
const marksOf = (object: KubeObject, pod: Pod = object): Pick<ListedSandbox, 'isMarked' | 'sessionId'> => {
  const session = labelOf(object, LABEL.session)
  const state = session === undefined ? 'ready' : 'claimed'
  const agree = [object, pod].every(
    (one) => labelOf(one, LABEL.session) === session && labelOf(one, LABEL.state) === state,
  )
  const isMarked = agree && object.metadata.annotations?.[ANNOTATION.podUid] !== undefined
  return { isMarked, sessionId: agree ? (session ?? null) : null }
}

const isMade = ({ metadata }: KubeObject, installation: string): boolean | null => {
  const made = metadata.labels?.[LABEL.installation]
  return made === undefined ? null : made === installation
}

/**
 * All sandboxes of this installation, as the API server has them, not as a copy says: what is missing here is called gone. A pod, a Service or a policy whose owner
 * is not there is listed too, so that somebody removes it.
 */
export const listSandboxes = async (cluster: Cluster): Promise<ListedSandbox[]> => {
  const { settings, access, nodes } = cluster
  const { api } = settings
  const [objects, pods, services, policies, nodeList] = await Promise.all([
    read<KubeObject>(cluster, resourceOf(api)),
    api === 'pod' ? [] : read<Pod>(cluster, 'pods'),
    access.by === 'nodeport' ? read<KubeObject>(cluster, 'services') : [],
    readPolicies(cluster),
    nodes === null ? [] : read<Node>(cluster, 'nodes'),
  ])
  const objectOf = byName(objects)
  const podOf = api === 'pod' ? (objectOf as Map<string, Pod>) : byName(pods)
  const nodeOf = byName(nodeList)
  const all = new Map([...byName(policies), ...byName(services), ...podOf, ...objectOf])
  return [...all.values()].map((found) => {
    const { metadata } = found
    const pod = podOf.get(metadata.name)
    const node = nodeOf.get(pod?.spec?.nodeName ?? '')
    const seen = { api, object: objectOf.get(metadata.name), pod, node, nodesKnown: cluster.nodesKnown() }
    return {
      name: metadata.name,
      sandboxId: metadata.labels?.[LABEL.sandbox] ?? '',
      agentId: metadata.labels?.[LABEL.agent] ?? '',
      alive: verdictOf(seen, { unschedulableMs: 0 }).is !== 'failed',
      createdAt: new Date(metadata.creationTimestamp ?? 0),
      ...marksOf(found, pod),
      ours: isMade(found, settings.installation),
    }
  })
}
