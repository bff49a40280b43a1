import { errorText } from '../domain/errors.ts'
import { evidenceLogLines } from '../domain/limits.ts'
import type { Evidence, SandboxFailure } from '../sandbox/driver.ts'
import type { Cluster } from './cluster.ts'
import { getOrNull } from './cluster.ts'
import { hasStatus } from './errors.ts'
import { pathOf, resourceOf } from './objects.ts'
import type { ContainerStatus, KubeEvent, KubeList, Node, Pod, Sandbox, Service } from './objects.ts'
import { asLoss, verdictOf } from './status.ts'
import type { Seen } from './status.ts'

const eventsMax = 50

type Looked = Omit<Seen, 'object'> & {
  object: (Sandbox & Pod) | undefined
  service: Service | null
  events: KubeEvent[]
  logs: string[]
  troubles: string[]
}

/** Lines of all containers, oldest first in each; marked by the container's name where there are several. A container that has not started has none. */
export const readLogs = async (
  cluster: Cluster,
  pod: Pod,
  options: { tailLines: number; sinceSeconds?: number },
): Promise<string[]> => {
  const { client, settings } = cluster
  const names = pod.spec?.containers?.map(({ name }) => name) ?? []
  const path = `${pathOf('pods', settings.namespace, pod.metadata.name)}/log`
  const read = async (container: string): Promise<string[]> => {
    const query = { container, tailLines: options.tailLines, sinceSeconds: options.sinceSeconds }
    try {
      const lines = (await client.text({ path, query })).split('\n').filter((line) => line !== '')
      return names.length === 1 ? lines : lines.map((line) => `[${container}] ${line}`)
    } catch (error) {
      if (hasStatus(error, 400, 404)) return []
      throw error
    }
  }
  return (await Promise.all(names.map(read))).flat()
}

const eventTime = (event: KubeEvent): string =>
  event.lastTimestamp ?? event.eventTime ?? event.metadata.creationTimestamp ?? ''

/** Reads the API server itself: evidence is what is, not what a copy says. What cannot be read is named, and keeps nothing else from being told. */
const look = async (cluster: Cluster, name: string): Promise<Looked> => {
  const { client, settings, services, nodes } = cluster
  const { api, namespace } = settings
  const troubles: string[] = []
  const attempt = async <T>(what: string, read: Promise<T>, otherwise: T): Promise<T> => {
    try {
      return await read
    } catch (error) {
      troubles.push(`${what}: ${errorText(error)}`)
      return otherwise
    }
  }
  // Whether the sandbox is there must be known, or nothing is.
  const object = await getOrNull<Sandbox & Pod>(client, pathOf(resourceOf(api), namespace, name))
  const pod = api === 'pod' ? object : await getOrNull<Pod>(client, pathOf('pods', namespace, name))
  const nodeName = pod?.spec?.nodeName
  const fieldSelector = `involvedObject.name=${name}`
  const [service, events, node, logs] = await Promise.all([
    services === null
      ? null
      : attempt('service', getOrNull<Service>(client, pathOf('services', namespace, name)), null),
    attempt(
      'events',
      client.json<KubeList<KubeEvent>>({
        path: pathOf('events', namespace),
        query: { fieldSelector, limit: eventsMax },
      }),
      { metadata: {}, items: [] },
    ),
    nodes === null || nodeName === undefined
      ? null
      : attempt('node', getOrNull<Node>(client, pathOf('nodes', namespace, nodeName)), null),
    pod === null ? [] : attempt('logs', readLogs(cluster, pod, { tailLines: evidenceLogLines }), []),
  ])
  return {
    api,
    object: object ?? undefined,
    pod: pod ?? undefined,
    node: node ?? undefined,
    nodesKnown: nodes !== null && !troubles.some((trouble) => trouble.startsWith('node:')),
    service,
    events: events.items.toSorted((a, b) => (eventTime(a) < eventTime(b) ? -1 : 1)),
    logs,
    troubles,
  }
}

const containerFacts = ({ name, state, lastState, restartCount }: ContainerStatus) => ({
  name,
  state,
  ...(lastState === undefined || Object.keys(lastState).length === 0 ? {} : { last_state: lastState }),
  restarts: restartCount ?? 0,
})

const detailsOf = (looked: Looked): Record<string, unknown> => {
  const { api, object, pod, node, service, events, troubles } = looked
  const status = pod?.status
  return {
    ...(api === 'sandbox' ? { sandbox_conditions: object?.status?.conditions ?? [] } : {}),
    labels: object?.metadata.labels ?? {},
    phase: status?.phase ?? null,
    reason: status?.reason ?? null,
    message: status?.message ?? null,
    pod_uid: pod?.metadata.uid ?? null,
    pod_ip: status?.podIP ?? null,
    pod_conditions: status?.conditions ?? [],
    containers: [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])].map(containerFacts),
    node_ready: node?.status?.conditions?.find(({ type }) => type === 'Ready')?.status ?? null,
    node_port: service?.spec?.ports?.[0]?.nodePort ?? null,
    service_exists: service !== null,
    events: events.map((event) => ({
      at: eventTime(event),
      type: event.type,
      reason: event.reason,
      message: event.message,
      count: event.count ?? 1,
    })),
    ...(troubles.length === 0 ? {} : { not_read: troubles }),
  }
}

/** Unschedulable and unpullable pods are no loss: nothing of them ran. */
const nothingRuns = (looked: Looked): boolean => verdictOf(looked, { unschedulableMs: 0 }).is === 'failed'

const evidenceOf = (looked: Looked): Evidence => {
  const { object, pod, logs } = looked
  const ended = pod?.status?.containerStatuses?.find(({ state }) => state?.terminated !== undefined)?.state?.terminated
  return {
    exists: object !== undefined || pod !== undefined,
    alive: !nothingRuns(looked),
    state: pod?.status?.phase ?? (object === undefined ? 'gone' : 'no pod'),
    ...(ended === undefined ? {} : { exitCode: ended.exitCode }),
    ...(pod?.status?.startTime === undefined ? {} : { startedAt: pod.status.startTime }),
    ...(pod?.spec?.nodeName === undefined ? {} : { node: pod.spec.nodeName }),
    ...(logs.length === 0 ? {} : { logTail: logs.slice(-evidenceLogLines) }),
    details: detailsOf(looked),
  }
}

export const inspectSandbox = async (cluster: Cluster, name: string): Promise<Evidence> =>
  evidenceOf(await look(cluster, name))

/** Why a sandbox that was in use, or waited for it, is there no more. */
export const lossOf = async (cluster: Cluster, name: string): Promise<SandboxFailure> => {
  const looked = await look(cluster, name)
  const verdict = verdictOf(looked, { unschedulableMs: 0 })
  const evidence = evidenceOf(looked)
  if (verdict.is !== 'failed') return { code: 'sandbox_lost', message: 'It was lost; by now it looks well.', evidence }
  return { code: asLoss(verdict.code), message: verdict.message, evidence }
}
