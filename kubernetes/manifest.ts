import { createHash } from 'node:crypto'
import { withResources } from '../domain/quantity.ts'
import type { ResourceRequirements } from '../domain/quantity.ts'
import type { SandboxSpec } from '../sandbox/driver.ts'
import { blocksOf } from './egress.ts'
import type { EgressSettings } from './egress.ts'
import { ANNOTATION, HARNESS_CONTAINER, LABEL, ownedBy, podSelector } from './names.ts'
import { SANDBOX_API_VERSION } from './objects.ts'
import type { OwnerReference, SandboxApi } from './objects.ts'

/** What all sandboxes of an installation have in common. */
export type PodSettings = {
  api: SandboxApi
  namespace: string
  instance: string
  /** The id of `db/installation.ts`. */
  installation: string
  imagePullPolicy: 'Never' | 'IfNotPresent' | 'Always'
  imagePullSecrets: string[]
  /** What an agent's own do not say. */
  resources: ResourceRequirements
  /** Size of the directory with clone, home and journal, for instance `10Gi`. */
  workSize: string
  priorityClassName: string | null
  runtimeClassName: string | null
  serviceAccountName: string | null
  nodeSelector: Record<string, string>
  tolerations: Toleration[]
  /** Port of the supervisor inside the pod, and of its Service. */
  supervisorPort: number
  egress: EgressSettings
}

export type Toleration = {
  key?: string | undefined
  operator?: 'Exists' | 'Equal' | undefined
  value?: string | undefined
  effect?: 'NoSchedule' | 'PreferNoSchedule' | 'NoExecute' | undefined
  tolerationSeconds?: number | undefined
}

/** A user of the image that is nobody on the node. */
const SANDBOX_UID = 1_000
/** Time for a supervisor to end its harness in order. */
const graceSeconds = 5
/**
 * Pods of a node that is not ready are evicted after this, instead of the usual 5 minutes. By then the platform has left one of which nothing is heard; one whose kubelet says
 * itself that it is not ready, as after a restart, has this long.
 */
const nodeGoneSeconds = 30
/** Where clone, home and journal are. */
const WORK_DIR = '/work'

/** What the pod may show of the token: it proves one, and gives none. */
export const tokenHash = (token: string): string => createHash('sha256').update(token).digest('hex')

/** Warm sandboxes may go: the pool replaces them. A claim takes that back. */
const podAnnotations = { [ANNOTATION.safeToEvict]: 'true' }

const harnessContainer = (spec: SandboxSpec, settings: PodSettings) => ({
  name: HARNESS_CONTAINER,
  image: spec.image,
  imagePullPolicy: settings.imagePullPolicy,
  // Nothing secret: the configuration and all values come later, to whoever shows that it has the token.
  env: [
    { name: 'LAP_SANDBOX_ID', value: spec.sandboxId },
    { name: 'LAP_TOKEN_SHA256', value: tokenHash(spec.token) },
    { name: 'LAP_LISTEN', value: `0.0.0.0:${settings.supervisorPort}` },
    { name: 'LAP_DIR', value: WORK_DIR },
  ],
  ports: [{ name: 'supervisor', containerPort: settings.supervisorPort, protocol: 'TCP' }],
  readinessProbe: {
    httpGet: { path: '/healthz', port: settings.supervisorPort },
    periodSeconds: 1,
    timeoutSeconds: 1,
    failureThreshold: 3,
  },
  resources: withResources(settings.resources, spec.resources),
  // The supervisor's last words, or else the end of its log.
  terminationMessagePolicy: 'FallbackToLogsOnError',
  securityContext: {
    allowPrivilegeEscalation: false,
    privileged: false,
    runAsNonRoot: true,
    capabilities: { drop: ['ALL'] },
    seccompProfile: { type: 'RuntimeDefault' },
  },
  volumeMounts: [{ name: 'work', mountPath: WORK_DIR }],
})

const given = <T>(key: string, value: T | null): Record<string, T> => (value === null ? {} : { [key]: value })

const podSpec = (spec: SandboxSpec, settings: PodSettings) => ({
  restartPolicy: 'Never',
  automountServiceAccountToken: false,
  enableServiceLinks: false,
  hostNetwork: false,
  hostPID: false,
  hostIPC: false,
  terminationGracePeriodSeconds: graceSeconds,
  securityContext: {
    runAsNonRoot: true,
    runAsUser: SANDBOX_UID,
    runAsGroup: SANDBOX_UID,
    fsGroup: SANDBOX_UID,
    fsGroupChangePolicy: 'OnRootMismatch',
    seccompProfile: { type: 'RuntimeDefault' },
  },
  containers: [harnessContainer(spec, settings)],
  volumes: [{ name: 'work', emptyDir: { sizeLimit: settings.workSize } }],
  tolerations: [
    ...['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable'].map((key) => ({
      key,
      operator: 'Exists',
      effect: 'NoExecute',
      tolerationSeconds: nodeGoneSeconds,
    })),
    ...settings.tolerations,
  ],
  ...(Object.keys(settings.nodeSelector).length === 0 ? {} : { nodeSelector: settings.nodeSelector }),
  ...(settings.imagePullSecrets.length === 0
    ? {}
    : { imagePullSecrets: settings.imagePullSecrets.map((name) => ({ name })) }),
  ...given('priorityClassName', settings.priorityClassName),
  ...given('runtimeClassName', settings.runtimeClassName),
  ...given('serviceAccountName', settings.serviceAccountName),
})

/** The object that stands for a sandbox: a `Sandbox`, or a plain Pod where there is no agent-sandbox. */
export const objectOf = (spec: SandboxSpec, settings: PodSettings) => {
  const labels = {
    ...ownedBy(settings, spec),
    [LABEL.template]: spec.templateHash,
    [LABEL.purpose]: spec.purpose,
    [LABEL.state]: 'starting',
    ...(blocksOf(spec, settings.egress) === null ? {} : { [LABEL.egress]: 'own' }),
  }
  const metadata = { name: spec.name, namespace: settings.namespace, labels }
  if (settings.api === 'pod')
    return {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { ...metadata, annotations: podAnnotations },
      spec: podSpec(spec, settings),
    }
  return {
    apiVersion: SANDBOX_API_VERSION,
    kind: 'Sandbox',
    metadata,
    spec: {
      operatingMode: 'Running',
      // The Service is ours to make: the controller's is headless, and no way in from outside.
      service: false,
      podTemplate: { metadata: { labels, annotations: podAnnotations }, spec: podSpec(spec, settings) },
    },
  }
}

/** The way in from outside the cluster. Gone with its owner. */
export const serviceOf = (
  spec: Pick<SandboxSpec, 'name' | 'sandboxId' | 'agentId'>,
  settings: Pick<PodSettings, 'api' | 'namespace' | 'instance' | 'installation' | 'supervisorPort'>,
  /** `anyNode`: it is asked at a node that need not be the pod's. */
  { uid, anyNode }: { uid: string; anyNode: boolean },
) => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: {
    name: spec.name,
    namespace: settings.namespace,
    labels: ownedBy(settings, spec),
    ownerReferences: [ownerOf(settings.api, spec.name, uid)],
  },
  spec: {
    type: 'NodePort',
    selector: podSelector(settings.instance, spec.sandboxId),
    // It has to be configured before it can be Ready.
    publishNotReadyAddresses: true,
    // Where the pod's own node is asked no other need pass it on.
    externalTrafficPolicy: anyNode ? 'Cluster' : 'Local',
    ports: [
      { name: 'supervisor', port: settings.supervisorPort, targetPort: settings.supervisorPort, protocol: 'TCP' },
    ],
  },
})

export const ownerOf = (api: SandboxApi, name: string, uid: string): OwnerReference => ({
  apiVersion: api === 'sandbox' ? SANDBOX_API_VERSION : 'v1',
  kind: api === 'sandbox' ? 'Sandbox' : 'Pod',
  name,
  uid,
  blockOwnerDeletion: false,
})

export type StatePatch = { labels: Record<string, string>; annotations: Record<string, string> }

/** Merge patch of the pod of a sandbox, or of the plain Pod that is one. */
export const podPatch = ({ labels, annotations }: StatePatch) => ({ metadata: { labels, annotations } })

/** The same of a `Sandbox`: its own labels, and its template's, from which the controller writes those of the pod. */
export const sandboxPatch = ({ labels, annotations }: StatePatch) => {
  const { [ANNOTATION.safeToEvict]: safeToEvict, ...own } = annotations
  const ofPod = safeToEvict === undefined ? {} : { annotations: { [ANNOTATION.safeToEvict]: safeToEvict } }
  return {
    metadata: { labels, ...(Object.keys(own).length === 0 ? {} : { annotations: own }) },
    spec: { podTemplate: { metadata: { labels, ...ofPod } } },
  }
}

const uidOf = (podUid: string | null): Record<string, string> =>
  podUid === null ? {} : { [ANNOTATION.podUid]: podUid }

/** @param podUid null: it stays as it is */
export const readyPatch = (podUid: string | null): StatePatch => ({
  labels: { [LABEL.state]: 'ready' },
  annotations: uidOf(podUid),
})

/** @param podUid null: it stays as it is */
export const claimedPatch = (sessionId: string, podUid: string | null): StatePatch => ({
  labels: { [LABEL.state]: 'claimed', [LABEL.session]: sessionId },
  annotations: { [ANNOTATION.safeToEvict]: 'false', ...uidOf(podUid) },
})
