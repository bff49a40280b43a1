import { errorText } from '../domain/errors.ts'
import { eventTime, foundIn } from './look.ts'
import type { Looked, Read } from './look.ts'
import { HARNESS_CONTAINER } from './names.ts'
import { conditionOf } from './objects.ts'
import type { Condition, ContainerStatus, KubeObject, Node, Sandbox, Service } from './objects.ts'
import { percentOf, requestsOf, resourcesOf, sumOf } from './quantity.ts'

/** A part of the evidence as `diagnose` shows it. */
type Section = { exists: boolean; error?: string } & Record<string, unknown>

/** Without what is undefined. */
const present = (all: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))

const ages = ({ metadata }: KubeObject, now: Date) => {
  const created = Date.parse(metadata.creationTimestamp ?? '')
  return Number.isNaN(created) ? {} : { age_ms: now.getTime() - created, created_at: new Date(created).toISOString() }
}

const conditionsOf = (conditions: Condition[] = []) =>
  conditions.map(({ type, status, reason, message }) => present({ type, status, reason, message }))

/** What is not there, or why that is not known. */
const absent = <T>(read: Read<T | null>): Section => ({
  exists: false,
  ...('error' in read ? { error: errorText(read.error) } : {}),
})

const containerSection = (status: ContainerStatus, init: boolean) => {
  const { name, image, ready = false, restartCount = 0, state, lastState } = status
  const ended = state?.terminated ?? lastState?.terminated
  return present({
    name,
    ...(init ? { init } : {}),
    image,
    ready,
    restart_count: restartCount,
    started_at: state?.running?.startedAt ?? ended?.startedAt,
    waiting_reason: state?.waiting?.reason,
    waiting_message: state?.waiting?.message,
    terminated_reason: ended?.reason,
    terminated_exit_code: ended?.exitCode,
    terminated_message: ended?.message,
  })
}

/** null: what the network lets through is the same for all. */
const policySection = (read: Looked['policy']) => {
  if (read === null) return null
  const policy = foundIn(read)
  if (policy === undefined || policy === null) return absent(read)
  const blocks = policy.spec?.egress?.flatMap(({ to = [] }) => to.flatMap(({ ipBlock }) => ipBlock ?? [])) ?? []
  return {
    exists: true,
    name: policy.metadata.name,
    allowed: blocks.map(({ cidr }) => cidr),
    except: blocks.flatMap(({ except = [] }) => except),
  }
}

const podSection = ({ pod: read, policy }: Looked, now: Date): Section => {
  const pod = foundIn(read)
  if (pod === undefined || pod === null) return absent(read)
  const { metadata, spec, status } = pod
  const inits = status?.initContainerStatuses ?? []
  const containers = status?.containerStatuses ?? []
  return {
    exists: true,
    ...present({
      uid: metadata.uid,
      phase: status?.phase,
      reason: status?.reason,
      message: status?.message,
      deleting_since: metadata.deletionTimestamp,
      pod_ip: status?.podIP,
      pod_ips: status?.podIPs?.map(({ ip }) => ip),
      host_ip: status?.hostIP,
      node_name: spec?.nodeName,
      started_at: status?.startTime,
    }),
    ...ages(pod, now),
    restart_count: containers.reduce((sum, { restartCount = 0 }) => sum + restartCount, 0),
    container_statuses: [
      ...inits.map((one) => containerSection(one, true)),
      ...containers.map((one) => containerSection(one, false)),
    ],
    conditions: conditionsOf(status?.conditions),
    egress_policy: policySection(policy),
  }
}

const sandboxSection = ({ reader, object }: Looked, now: Date): Section => {
  if (reader.api === 'pod') return { exists: false, notes: 'Sandboxes are plain Pods here (K8S_SANDBOX_API=pod).' }
  const sandbox: Sandbox | null | undefined = foundIn(object)
  if (sandbox === undefined || sandbox === null) return absent(object)
  const { status } = sandbox
  return {
    exists: true,
    ...ages(sandbox, now),
    labels: sandbox.metadata.labels ?? {},
    conditions: conditionsOf(status?.conditions),
    pod_ips: status?.podIPs ?? [],
    ...present({ deleting_since: sandbox.metadata.deletionTimestamp, service: status?.service, raw_status: status }),
  }
}

const serviceSection = (read: Read<Service | null> | null, now: Date): Section => {
  if (read === null) return { exists: false, expected: false }
  const service = foundIn(read)
  if (service === undefined || service === null) return { expected: true, ...absent(read) }
  const ports = service.spec?.ports ?? []
  return {
    exists: true,
    expected: true,
    ...ages(service, now),
    ports: ports.map(({ port, targetPort, nodePort, protocol }) =>
      present({ port, target_port: targetPort, node_port: nodePort, protocol }),
    ),
    ...present({ cluster_ip: service.spec?.clusterIP, node_port: ports[0]?.nodePort }),
  }
}

/** What the pods of a node ask for together, and how much of it that is. */
const allocation = (node: Node, pods: Looked['nodePods']) => {
  const capacity = resourcesOf(node.status?.capacity)
  const sizes = { capacity, allocatable: resourcesOf(node.status?.allocatable) }
  if (pods === null) return sizes
  if ('error' in pods) return { ...sizes, allocated_error: errorText(pods.error) }
  const requests = sumOf(pods.found.map(({ spec }) => requestsOf(spec)))
  return {
    ...sizes,
    allocated_requests: requests,
    allocated_pct: percentOf(requests, capacity),
    pod_count: pods.found.length,
  }
}

const nodeSection = ({ reader, pod, node: read, nodePods }: Looked, now: Date): Section => {
  const name = foundIn(pod)?.spec?.nodeName
  if (name === undefined) return { exists: false }
  if (!reader.mayReadNodes) return { exists: false, name, error: 'nodes may not be read' }
  if (read === null) return { exists: false, name }
  const node = foundIn(read)
  if (node === undefined || node === null) return { name, ...absent(read) }
  const ready = conditionOf(node.status?.conditions, 'Ready')
  const address = (type: string): string | undefined =>
    node.status?.addresses?.find((one) => one.type === type)?.address
  return {
    exists: true,
    name,
    ...present({
      ready_status: ready?.status,
      ready_reason: ready?.reason,
      ready_message: ready?.message,
      internal_ip: address('InternalIP'),
      external_ip: address('ExternalIP'),
      unschedulable: node.spec?.unschedulable,
    }),
    ...ages(node, now),
    taints: node.spec?.taints?.map(({ key, value, effect }) => present({ key, value, effect })) ?? [],
    ...allocation(node, nodePods),
  }
}

/** `harness:1` is what the node calls `docker.io/library/harness:1`. */
const fullName = (image: string): string => {
  const [first = '', ...rest] = image.split('/')
  const hosted = rest.length > 0 && (/[.:]/.test(first) || first === 'localhost')
  const named = hosted ? image : `docker.io/${rest.length === 0 ? 'library/' : ''}${image}`
  return /[:@][^/]*$/.test(named.slice(named.lastIndexOf('/'))) ? named : `${named}:latest`
}

/** Kubelets report this many images, the largest first. */
const reportedImages = 50

/** Whether the node of the pod has its image already. There is no DaemonSet that sees to it: pools do, by starting sandboxes ahead. */
const imageSection = ({ pod: read, node: nodeRead }: Looked): Record<string, unknown> => {
  const base = { daemonset_exists: false }
  const pod = foundIn(read)
  const container = pod?.spec?.containers?.find(({ name }) => name === HARNESS_CONTAINER) ?? pod?.spec?.containers?.[0]
  const image = container?.image
  if (image === undefined) return base
  if (nodeRead === null) return { ...base, image, notes: 'The pod is on no node whose images are known.' }
  if ('error' in nodeRead) return { ...base, image, error: errorText(nodeRead.error) }
  if (nodeRead.found === null) return { ...base, image, notes: 'The node of the pod is gone.' }
  const images = nodeRead.found.status?.images ?? []
  const wanted = fullName(image)
  const isThere = images.some(({ names }) => names?.some((name) => fullName(name) === wanted))
  if (isThere) return { ...base, image, ready_on_pod_node: true, notes: 'The node of the pod has the image.' }
  if (images.length === 0) return { ...base, image, notes: 'The node of the pod reports no images.' }
  if (images.length >= reportedImages)
    return {
      ...base,
      image,
      notes: `The image is not among the ${images.length} that the node reports: it may have more.`,
    }
  return {
    ...base,
    image,
    ready_on_pod_node: false,
    notes: 'The node of the pod does not have the image: it has to be pulled.',
  }
}

const eventsOf = (read: Looked['events']) =>
  'error' in read
    ? { events: [], events_error: errorText(read.error) }
    : {
        events: read.found.map((event) => ({
          at: eventTime(event),
          type: event.type,
          reason: event.reason,
          message: event.message,
          count: event.count ?? 1,
        })),
      }

/** What the API server sends is not ours to shape: a section that cannot be made of it says so, and keeps nothing else from being told. */
const told = <T extends object>(tell: () => T, otherwise: T): T => {
  try {
    return tell()
  } catch (error) {
    return { ...otherwise, error: `not understood: ${errorText(error)}` }
  }
}

const unknown: Section = { exists: false }

/** What was seen, in the shapes of `diagnose`. Never throws. */
export const sectionsOf = (looked: Looked, now: Date): Record<string, unknown> => ({
  seen_at: now.toISOString(),
  pod: told(() => podSection(looked, now), unknown),
  sandbox_cr: told(() => sandboxSection(looked, now), unknown),
  service: told(() => serviceSection(looked.service, now), unknown),
  node: told(() => nodeSection(looked, now), unknown),
  image_cache: told(() => imageSection(looked), { daemonset_exists: false }),
  ...eventsOf(looked.events),
  ...('error' in looked.logs ? { logs_error: errorText(looked.logs.error) } : {}),
})
