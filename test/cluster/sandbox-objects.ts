import { createHash } from 'node:crypto'

/** The objects of the agent-sandbox stand-in, as pure functions of a Sandbox and what is there. */
export type Meta = {
  namespace: string
  name: string
  uid: string
  resourceVersion: string
  generation?: number
  labels?: Record<string, string>
  annotations?: Record<string, string>
  deletionTimestamp?: string
  ownerReferences?: { uid: string; controller?: boolean }[]
}

export type Condition = {
  type: string
  status: 'True' | 'False' | 'Unknown'
  reason: string
  message: string
  lastTransitionTime: string
  observedGeneration?: number
}

type Container = { name: string; ports?: { name?: string; containerPort: number; protocol?: string }[] }

export type Sandbox = {
  metadata: Meta
  spec: {
    podTemplate: {
      metadata?: { labels?: Record<string, string>; annotations?: Record<string, string> }
      spec: { containers: Container[] }
    }
    service?: boolean
    shutdownTime?: string
    shutdownPolicy?: 'Delete' | 'Retain'
    operatingMode?: 'Running' | 'Suspended'
  }
  status?: {
    conditions?: Condition[]
    service?: string
    serviceFQDN?: string
    selector?: string
    podIPs?: string[]
    nodeName?: string
  }
}

export type Pod = {
  metadata: Meta
  spec: { nodeName?: string }
  status?: {
    phase?: string
    podIPs?: { ip: string }[]
    conditions?: {
      type: string
      status: Condition['status']
      reason?: string
      message?: string
      lastTransitionTime?: string
    }[]
  }
}

export type Service = { metadata: Meta; spec: object }

const NAME_HASH = 'agents.x-k8s.io/sandbox-name-hash'
const SYSTEM_PREFIXES = ['agents.x-k8s.io/', 'extensions.agents.x-k8s.io/']

const nameHash = (name: string): string => createHash('sha256').update(name).digest('hex').slice(0, 8)

/** Users may not set keys of the system. */
const withoutSystemKeys = (values: Record<string, string> = {}): Record<string, string> =>
  Object.fromEntries(
    Object.entries(values).filter(([key]) => !SYSTEM_PREFIXES.some((prefix) => key.startsWith(prefix))),
  )

const ownerOf = ({ metadata }: Sandbox): object => ({
  apiVersion: 'agents.x-k8s.io/v1beta1',
  kind: 'Sandbox',
  name: metadata.name,
  uid: metadata.uid,
  controller: true,
  blockOwnerDeletion: true,
})

export const podOf = (sandbox: Sandbox): object => {
  const { metadata, spec } = sandbox.spec.podTemplate
  const { name, namespace } = sandbox.metadata
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      namespace,
      labels: { ...withoutSystemKeys(metadata?.labels), [NAME_HASH]: nameHash(name) },
      annotations: withoutSystemKeys(metadata?.annotations),
      ownerReferences: [ownerOf(sandbox)],
    },
    spec,
  }
}

/** Headless, with the ports of the containers. */
export const serviceOf = (sandbox: Sandbox): object => {
  const { name, namespace } = sandbox.metadata
  const ports = sandbox.spec.podTemplate.spec.containers.flatMap((container) => container.ports ?? [])
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace, labels: { [NAME_HASH]: nameHash(name) }, ownerReferences: [ownerOf(sandbox)] },
    spec: {
      clusterIP: 'None',
      selector: { [NAME_HASH]: nameHash(name) },
      ports: ports.map(({ name, containerPort, protocol = 'TCP' }) => ({
        name: name ?? `port-${containerPort}`,
        port: containerPort,
        targetPort: containerPort,
        protocol,
      })),
    },
  }
}

export type StatusInput = {
  sandbox: Sandbox
  pod?: Pod | undefined
  service?: Service | undefined
  clusterDomain: string
  isExpired?: boolean
  /** A pod of the name is there that belongs to somebody else. */
  isForeign?: boolean
  /** Why this could not be done. */
  error?: string
}

type Verdict = Pick<Condition, 'status' | 'reason' | 'message'>

const readiness = ({ sandbox, pod, service, isExpired, isForeign, error }: StatusInput): Verdict => {
  const no = (reason: string, message: string): Verdict => ({ status: 'False', reason, message })
  if (isExpired === true) return no('SandboxExpired', 'Sandbox has expired')
  if (sandbox.spec.operatingMode === 'Suspended') return no('SandboxSuspended', 'Sandbox is suspended')
  if (error !== undefined) return no('ReconcilerError', `Error seen: ${error}`)
  if (isForeign === true) return no('ReconcilerError', 'A pod of this name belongs to another owner')
  const phase = pod?.status?.phase
  if (phase === 'Succeeded') return no('PodSucceeded', 'Pod has succeeded')
  if (phase === 'Failed') return no('PodFailed', 'Pod has failed')
  const isPodReady = pod?.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false
  const hasAddress = (pod?.status?.podIPs ?? []).length > 0
  const hasService = sandbox.spec.service !== true || service !== undefined
  const isGoing = pod?.metadata.deletionTimestamp !== undefined
  if (phase === 'Running' && isPodReady && hasAddress && hasService && !isGoing)
    return { status: 'True', reason: 'DependenciesReady', message: 'Pod is Ready' }
  return no(
    'DependenciesNotReady',
    pod === undefined ? 'Pod does not exist' : `Pod is ${phase ?? 'Pending'} and not Ready`,
  )
}

const suspension = ({ sandbox, pod, isForeign }: StatusInput): Verdict => {
  if (sandbox.spec.operatingMode !== 'Suspended')
    return { status: 'False', reason: 'NotSuspended', message: 'Operating mode is Running' }
  if (pod === undefined) return { status: 'True', reason: 'PodTerminated', message: 'Pod is gone' }
  if (isForeign === true) return { status: 'False', reason: 'PodNotOwned', message: 'Pod belongs to another owner' }
  return { status: 'False', reason: 'PodTerminating', message: 'Pod is being terminated' }
}

/** Finished stays once it is there, also after the expiry. */
const finish = ({ sandbox, pod, isForeign }: StatusInput): Verdict | null => {
  const phase = isForeign === true ? undefined : pod?.status?.phase
  if (phase === 'Succeeded' || phase === 'Failed')
    return { status: 'True', reason: `Pod${phase}`, message: `Pod has ${phase.toLowerCase()}` }
  return sandbox.status?.conditions?.find(({ type }) => type === 'Finished') ?? null
}

const scheduling = ({ pod, isForeign }: StatusInput): Verdict | null => {
  const own = isForeign === true ? undefined : pod?.status?.conditions?.find(({ type }) => type === 'PodScheduled')
  if (own === undefined) return null
  // A condition of a pod may have no reason, one of a Sandbox must.
  return { status: own.status, reason: own.reason || 'Scheduled', message: own.message ?? '' }
}

/** The time of a condition changes with its status only. */
const conditionOf = (sandbox: Sandbox, type: string, { status, reason, message }: Verdict): Condition => {
  const before = sandbox.status?.conditions?.find((condition) => condition.type === type)
  return {
    type,
    status,
    reason,
    message,
    lastTransitionTime:
      before?.status === status ? before.lastTransitionTime : `${new Date().toISOString().slice(0, 19)}Z`,
    ...(sandbox.metadata.generation === undefined ? {} : { observedGeneration: sandbox.metadata.generation }),
  }
}

export const statusOf = (input: StatusInput): NonNullable<Sandbox['status']> => {
  const { sandbox, service, clusterDomain, isExpired, isForeign } = input
  const { name, namespace } = sandbox.metadata
  const verdicts: [string, Verdict | null][] = [
    ['Ready', readiness(input)],
    ['Suspended', suspension(input)],
    ['PodScheduled', isExpired === true ? null : scheduling(input)],
    ['Finished', finish(input)],
  ]
  const conditions = verdicts.flatMap(([type, verdict]) =>
    verdict === null ? [] : [conditionOf(sandbox, type, verdict)],
  )
  if (isExpired === true) return { conditions }
  const pod = isForeign === true ? undefined : input.pod
  const podIPs = pod?.status?.podIPs?.map(({ ip }) => ip) ?? []
  return {
    conditions,
    selector: `${NAME_HASH}=${nameHash(name)}`,
    ...(service === undefined ? {} : { service: name, serviceFQDN: `${name}.${namespace}.svc.${clusterDomain}` }),
    ...(podIPs.length === 0 ? {} : { podIPs }),
    ...(pod?.spec.nodeName === undefined ? {} : { nodeName: pod.spec.nodeName }),
  }
}
