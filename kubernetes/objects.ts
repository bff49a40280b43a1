/**
 * The parts of Kubernetes objects that the driver reads, as they are on the wire: times are texts, what is absent is absent. (The types of
 * `@kubernetes/client-node` describe objects after its own decoding, with dates.)
 */
export type Metadata = {
  name: string
  namespace?: string
  uid?: string
  resourceVersion?: string
  creationTimestamp?: string
  deletionTimestamp?: string
  labels?: Record<string, string>
  annotations?: Record<string, string>
  ownerReferences?: OwnerReference[]
}

export type OwnerReference = {
  apiVersion: string
  kind: string
  name: string
  uid: string
  controller?: boolean
  blockOwnerDeletion?: boolean
}

export type Condition = {
  type: string
  status: string
  reason?: string
  message?: string
  lastTransitionTime?: string
}

export type KubeObject = { apiVersion?: string; kind?: string; metadata: Metadata }

export type Sandbox = KubeObject & {
  spec?: { podTemplate?: { metadata?: Partial<Metadata>; spec?: Record<string, unknown> }; operatingMode?: string }
  status?: { conditions?: Condition[]; podIPs?: string[]; nodeName?: string; service?: string }
}

export type ContainerState = {
  waiting?: { reason?: string; message?: string }
  running?: { startedAt?: string }
  terminated?: {
    exitCode: number
    signal?: number
    reason?: string
    message?: string
    startedAt?: string
    finishedAt?: string
  }
}

export type ContainerStatus = {
  name: string
  image?: string
  ready?: boolean
  restartCount?: number
  state?: ContainerState
  lastState?: ContainerState
}

export type ContainerSpec = {
  name: string
  image?: string
  /** Of an init container: `Always` makes it a sidecar. */
  restartPolicy?: string
  resources?: { requests?: Record<string, string> }
}

export type Pod = KubeObject & {
  spec?: {
    nodeName?: string
    containers?: ContainerSpec[]
    initContainers?: ContainerSpec[]
    overhead?: Record<string, string>
  }
  status?: {
    phase?: string
    reason?: string
    message?: string
    conditions?: Condition[]
    podIP?: string
    podIPs?: { ip: string }[]
    hostIP?: string
    startTime?: string
    initContainerStatuses?: ContainerStatus[]
    containerStatuses?: ContainerStatus[]
  }
}

export type Service = KubeObject & {
  spec?: { type?: string; clusterIP?: string; ports?: ServicePort[] }
}

export type ServicePort = {
  port: number
  targetPort?: number | string
  nodePort?: number
  protocol?: string
  name?: string
}

export type NetworkPolicy = KubeObject & {
  spec?: { egress?: { to?: { ipBlock?: IpBlock }[] }[] }
}

/** A range of addresses without those of `except`, which lie inside it. */
export type IpBlock = { cidr: string; except?: string[] }

export type Node = KubeObject & {
  spec?: { unschedulable?: boolean; taints?: { key: string; value?: string; effect: string }[] }
  status?: {
    conditions?: Condition[]
    addresses?: { type: string; address: string }[]
    capacity?: Record<string, string>
    allocatable?: Record<string, string>
    /** The kubelet reports the 50 largest ones, unless told otherwise. One that has lost its last name has `names: null`. */
    images?: { names?: string[] | null; sizeBytes?: number }[]
  }
}

export type KubeEvent = KubeObject & {
  type?: string
  reason?: string
  message?: string
  count?: number
  lastTimestamp?: string | null
  eventTime?: string | null
}

export type KubeList<T> = { metadata: { resourceVersion?: string; continue?: string }; items: T[] }

/** Which objects stand for sandboxes. */
export type SandboxApi = 'sandbox' | 'pod'

/** `/api/v1/namespaces/<ns>/<resource>` or `/apis/<group>/…`; a name goes at its end. */
export type Resource = 'sandboxes' | 'pods' | 'services' | 'events' | 'nodes' | 'networkpolicies'

export const SANDBOX_API_VERSION = 'agents.x-k8s.io/v1beta1'

const ROOTS: Partial<Record<Resource, string>> = {
  sandboxes: `/apis/${SANDBOX_API_VERSION}`,
  networkpolicies: '/apis/networking.k8s.io/v1',
}

export const pathOf = (resource: Resource, namespace: string, name?: string): string => {
  const tail = name === undefined ? '' : `/${encodeURIComponent(name)}`
  if (resource === 'nodes') return `/api/v1/nodes${tail}`
  return `${ROOTS[resource] ?? '/api/v1'}/namespaces/${namespace}/${resource}${tail}`
}

export const resourceOf = (api: SandboxApi): 'sandboxes' | 'pods' => (api === 'sandbox' ? 'sandboxes' : 'pods')

export const conditionOf = (conditions: Condition[] | undefined, type: string): Condition | undefined =>
  conditions?.find((condition) => condition.type === type)
