import { evidenceLogLines } from '../domain/limits.ts'
import type { KubeClient } from './client.ts'
import { getOrNull } from './cluster.ts'
import { hasStatus, unavailable } from './errors.ts'
import { LABEL } from './names.ts'
import { pathOf, resourceOf } from './objects.ts'
import type { KubeEvent, KubeList, NetworkPolicy, Node, Pod, Sandbox, SandboxApi, Service } from './objects.ts'

const eventsMax = 50
/** The kubelet has the log, not the API server; that of a lost node does not answer, and what became of the sandbox must not wait for it. */
const logsTimeoutMs = 2_000

/** What there is to be read, and what of it. */
export type Reader = {
  client: Pick<KubeClient, 'json' | 'text'>
  api: SandboxApi
  namespace: string
  /** Whether sandboxes are reached through Services of their own. */
  hasServices: boolean
  mayReadNodes: boolean
  /** Whether a node that looks dead is: after an absence of the API server all do. */
  believesNodes: boolean
  /** Whether anything is heard of a node: its kubelet has the logs. */
  hears(node: string): boolean
  /** Whether all the pods of the sandbox' node are counted: one more list, of all namespaces. */
  countsNode: boolean
}

/** What was found; null: it is not there. Or why that is not known. */
export type Read<T> = { found: T } | { error: unknown }

export type Looked = {
  reader: Reader
  /** The `Sandbox`, or the plain Pod. */
  object: Read<(Sandbox & Pod) | null>
  pod: Read<Pod | null>
  /** null: nobody expects one. */
  service: Read<Service | null> | null
  /** null: it has none of its own. */
  policy: Read<NetworkPolicy | null> | null
  /** null: there is no pod on a node. */
  node: Read<Node | null> | null
  /** Pods on the node that hold resources. null: not counted. */
  nodePods: Read<Pod[]> | null
  /** Oldest first. */
  events: Read<KubeEvent[]>
  logs: Read<string[]>
}

export const foundIn = <T>(read: Read<T> | null): T | undefined =>
  read !== null && 'found' in read ? read.found : undefined

const attempt = async <T>(work: Promise<T>): Promise<Read<T>> => {
  try {
    return { found: await work }
  } catch (error) {
    return { error }
  }
}

type LogsWanted = { tailLines: number; sinceSeconds?: number; timeoutMs?: number }

/** Lines of all containers, oldest first in each; marked by the container's name where there are several. A container that has not started has none. */
export const readPodLogs = async (
  { client, namespace }: Pick<Reader, 'client' | 'namespace'>,
  pod: Pod,
  { tailLines, sinceSeconds, timeoutMs }: LogsWanted,
): Promise<string[]> => {
  const names = pod.spec?.containers?.map(({ name }) => name) ?? []
  const path = `${pathOf('pods', namespace, pod.metadata.name)}/log`
  const read = async (container: string): Promise<string[]> => {
    try {
      const query = { container, tailLines, sinceSeconds }
      const text = await client.text({ path, query, ...(timeoutMs === undefined ? {} : { timeoutMs }) })
      const lines = text.split('\n').filter((line) => line !== '')
      return names.length === 1 ? lines : lines.map((line) => `[${container}] ${line}`)
    } catch (error) {
      if (hasStatus(error, 400, 404)) return []
      throw error
    }
  }
  return (await Promise.all(names.map(read))).flat()
}

export const eventTime = (event: KubeEvent): string =>
  event.lastTimestamp ?? event.eventTime ?? event.metadata.creationTimestamp ?? ''

const readEvents = async ({ client, namespace }: Reader, name: string): Promise<KubeEvent[]> => {
  const query = { fieldSelector: `involvedObject.name=${name}`, limit: eventsMax }
  const { items } = await client.json<KubeList<KubeEvent>>({ path: pathOf('events', namespace), query })
  return items.toSorted((a, b) => (eventTime(a) < eventTime(b) ? -1 : 1))
}

/** A node has at most some hundred. */
const readNodePods = async ({ client }: Reader, node: string): Promise<Pod[]> => {
  const fieldSelector = `spec.nodeName=${node},status.phase!=Succeeded,status.phase!=Failed`
  return (await client.json<KubeList<Pod>>({ path: '/api/v1/pods', query: { fieldSelector } })).items
}

/** Of a node of which nothing is heard there is no log to be had, and waiting for it would keep many others waiting. */
const readLastLogs = async (reader: Reader, pod: Pod | null): Promise<Read<string[]>> => {
  if (pod === null) return { found: [] }
  const node = pod.spec?.nodeName
  if (node !== undefined && !reader.hears(node))
    return { error: unavailable(`nothing is heard of node ${node}, which has the log`) }
  return attempt(readPodLogs(reader, pod, { tailLines: evidenceLogLines, timeoutMs: logsTimeoutMs }))
}

/** Asks the API server itself: evidence is what is, not what a copy says. What cannot be read keeps nothing else from being told. Never throws. */
export const look = async (reader: Reader, name: string): Promise<Looked> => {
  const { client, api, namespace, hasServices, mayReadNodes, countsNode } = reader
  const one = <T>(path: string): Promise<Read<T | null>> => attempt(getOrNull<T>(client, path))
  const [object, plain, service, events] = await Promise.all([
    one<Sandbox & Pod>(pathOf(resourceOf(api), namespace, name)),
    api === 'pod' ? null : one<Pod>(pathOf('pods', namespace, name)),
    hasServices ? one<Service>(pathOf('services', namespace, name)) : null,
    attempt(readEvents(reader, name)),
  ])
  const pod = plain ?? object
  const there = foundIn<Pod | null>(pod) ?? null
  const nodeName = there?.spec?.nodeName
  const closed = (there ?? foundIn(object))?.metadata.labels?.[LABEL.egress] === 'own'
  const [policy, node, nodePods, logs] = await Promise.all([
    closed ? one<NetworkPolicy>(pathOf('networkpolicies', namespace, name)) : null,
    nodeName === undefined || !mayReadNodes ? null : one<Node>(pathOf('nodes', namespace, nodeName)),
    nodeName === undefined || !countsNode ? null : attempt(readNodePods(reader, nodeName)),
    readLastLogs(reader, there),
  ])
  return { reader, object, pod, service, policy, node, nodePods, events, logs }
}
