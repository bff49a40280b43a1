/**
 * What happens on the fake nodes: stages of KWOK, each of which patches an object that matches it, after a delay. Statuses come as a kubelet writes them: a pod is
 * first Pending with containers being created, and Running when they have started.
 *
 * An image decides how its container fares, because the image is what a test may choose by the front door:
 *
 *     …/image-missing…   is not to be had
 *     …/registry-down…   cannot be pulled now
 *     …/config-missing…  lacks something it is to be given
 *     …/crashes…         ends with 1 as soon as it has started
 *     …/out-of-memory…   is killed for its memory
 *     …/never-ready…     runs, and its probe never succeeds
 */
export type StageTimes = {
  /** From the binding to a node until the containers run, uniform between the two. */
  startMs: [number, number]
  /** From the deletion until the pod is gone. */
  stopMs: [number, number]
}

export const FAST: StageTimes = { startMs: [0, 0], stopMs: [0, 0] }
/** A node that has the image, and a harness that boots. */
export const REALISTIC: StageTimes = { startMs: [8_000, 12_000], stopMs: [1_000, 2_000] }

type Match = { key: string; operator: 'Exists' | 'DoesNotExist' | 'In' | 'NotIn'; values?: string[] }
type Next = { statusTemplate?: string; finalizers?: { empty: true }; delete?: true; event?: object }
type Rule = { name: string; kind: 'Node' | 'Pod'; match: Match[]; delayMs?: [number, number]; next: Next }

const stage = ({ name, kind, match, delayMs: [least, most] = [0, 0], next }: Rule): object => ({
  apiVersion: 'kwok.x-k8s.io/v1alpha1',
  kind: 'Stage',
  metadata: { name },
  spec: {
    resourceRef: { apiGroup: 'v1', kind },
    selector: { matchExpressions: match },
    // The second is not added to the first: it is the upper bound of a uniform choice.
    delay: { durationMilliseconds: least, jitterDurationMilliseconds: most },
    next,
  },
})

/** Statuses are templates of Go whose result is read as YAML; conditions and containers are merged by type and name. */
const conditions = (values: Record<string, [status: string, reason: string]>): string =>
  [
    'conditions:',
    ...Object.entries(values).map(
      ([type, [status, reason]]) =>
        `- {type: ${type}, status: "${status}", reason: "${reason}", lastTransitionTime: {{ Now | Quote }}}`,
    ),
  ].join('\n')

const NODE_UP = `
${conditions({
  Ready: ['True', 'KubeletReady'],
  MemoryPressure: ['False', 'KubeletHasSufficientMemory'],
  DiskPressure: ['False', 'KubeletHasNoDiskPressure'],
  PIDPressure: ['False', 'KubeletHasSufficientPID'],
})}
addresses:
- {type: InternalIP, address: {{ NodeIP | Quote }}}
- {type: Hostname, address: {{ .metadata.name | Quote }}}
nodeInfo:
  architecture: amd64
  operatingSystem: linux
  bootID: ""
  containerRuntimeVersion: fake://1
  kernelVersion: fake
  kubeProxyVersion: fake
  kubeletVersion: fake
  machineID: ""
  osImage: fake
  systemUUID: ""
daemonEndpoints:
  kubeletEndpoint:
    Port: {{ NodePort }}
phase: Running
`

const NOT_READY: [string, string] = ['False', 'ContainersNotReady']

const eachContainer = (status: string): string => `containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  restartCount: 0
${status}
{{ end }}`

const CREATING = `
phase: Pending
startTime: {{ Now | Quote }}
hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
hostIPs:
- ip: {{ NodeIPWith .spec.nodeName | Quote }}
${conditions({ Initialized: ['True', ''], Ready: NOT_READY, ContainersReady: NOT_READY })}
${eachContainer(`  ready: false
  started: false
  state: {waiting: {reason: ContainerCreating}}`)}
`

/** Set once: the address is what a pod of a kubelet has from its first start to its end. */
const POD_IP = `{{ $ip := PodIPWith .spec.nodeName ( or .spec.hostNetwork false ) ( or .metadata.uid "" ) ( or .metadata.name "" ) ( or .metadata.namespace "" ) }}
podIP: {{ $ip | Quote }}
podIPs:
- ip: {{ $ip | Quote }}
`

const RUNNING = `
phase: Running
${POD_IP}
${conditions({ Ready: ['True', ''], ContainersReady: ['True', ''] })}
${eachContainer(`  ready: true
  started: true
  state: {waiting: null, running: {startedAt: {{ Now | Quote }}}}`)}
`

const RUNNING_UNREADY = `
phase: Running
${POD_IP}
${conditions({ Ready: NOT_READY, ContainersReady: NOT_READY })}
${eachContainer(`  ready: {{ not (contains "/never-ready" .image) }}
  started: true
  state: {waiting: null, running: {startedAt: {{ Now | Quote }}}}`)}
`

/** The container of this image does not start, for this reason; the others wait for their turn. */
const containerWaits = (image: string, reason: string, message: string): string => `
phase: Pending
${eachContainer(`  ready: false
  started: false
{{ if contains "/${image}" .image }}
  state: {waiting: {reason: ${reason}, message: {{ printf ${JSON.stringify(message)} .image | Quote }}}}
{{ else }}
  state: {waiting: {reason: ContainerCreating}}
{{ end }}`)}
`

/** The container of this image ends and is not started again; the others run on, and with them the pod, as under restart policy Never. */
const containerEnds = (image: string, exitCode: number, reason: string): string => `
phase: {{ if eq (len .spec.containers) 1 }}Failed{{ else }}Running{{ end }}
${POD_IP}
${conditions({ Ready: NOT_READY, ContainersReady: NOT_READY })}
${eachContainer(`{{ if contains "/${image}" .image }}
  ready: false
  started: false
  state: {waiting: null, running: null, terminated: {exitCode: ${exitCode}, reason: ${reason}, startedAt: {{ Now | Quote }}, finishedAt: {{ Now | Quote }}}}
{{ else }}
  ready: true
  started: true
  state: {waiting: null, running: {startedAt: {{ Now | Quote }}}}
{{ end }}`)}
`

/** What keeps a container from starting, by image. */
const WAITS = {
  'image-missing': ['ErrImagePull', 'failed to pull image %q: not found'],
  'registry-down': ['ErrImagePull', 'failed to pull image %q: dial tcp 192.0.2.1:443: connect: connection refused'],
  'config-missing': ['CreateContainerConfigError', 'secret of image %q is missing'],
} as const

const TROUBLES = [...Object.keys(WAITS), 'crashes', 'out-of-memory', 'never-ready']

const hasImage = (part: string): Match => ({
  key: `.spec.containers[] | select(.image | test("/(${part})")) | .name`,
  operator: 'Exists',
})
const hasNoTrouble: Match = { ...hasImage(TROUBLES.join('|')), operator: 'DoesNotExist' }

const isKept: Match = { key: '.metadata.deletionTimestamp', operator: 'DoesNotExist' }
const hasNotStarted: Match = { key: '.status.startTime', operator: 'DoesNotExist' }
const isCreating: Match = {
  key: '.status.containerStatuses[] | select(.state.waiting.reason == "ContainerCreating") | .name',
  operator: 'Exists',
}
const isNotWaitingFor = (reason: string): Match => ({
  key: `.status.containerStatuses[] | select(.state.waiting.reason == "${reason}") | .name`,
  operator: 'DoesNotExist',
})

const stagesOf = ({ startMs, stopMs }: StageTimes): object[] => {
  const starts = (name: string, match: Match[], next: Next): object =>
    stage({ name, kind: 'Pod', match: [isKept, isCreating, ...match], delayMs: startMs, next })
  return [
    stage({
      name: 'node-up',
      kind: 'Node',
      match: [
        {
          key: '.status.conditions.[] | select( .type == "Ready" ) | .status',
          operator: 'NotIn',
          values: ['True'],
        },
      ],
      next: { statusTemplate: NODE_UP },
    }),
    stage({
      name: 'pod-creating',
      kind: 'Pod',
      match: [isKept, hasNotStarted],
      next: { statusTemplate: CREATING },
    }),
    starts('pod-running', [hasNoTrouble], { statusTemplate: RUNNING }),
    ...Object.entries(WAITS).map(([image, [reason, message]]) =>
      starts(`pod-${image}`, [hasImage(image), isNotWaitingFor(reason)], {
        event: { type: 'Warning', reason: 'Failed', message: `Error: ${reason}` },
        statusTemplate: containerWaits(image, reason, message),
      }),
    ),
    starts('pod-crashes', [hasImage('crashes')], { statusTemplate: containerEnds('crashes', 1, 'Error') }),
    starts('pod-out-of-memory', [hasImage('out-of-memory')], {
      statusTemplate: containerEnds('out-of-memory', 137, 'OOMKilled'),
    }),
    starts('pod-never-ready', [hasImage('never-ready')], { statusTemplate: RUNNING_UNREADY }),
    stage({
      name: 'pod-delete',
      kind: 'Pod',
      match: [{ key: '.metadata.deletionTimestamp', operator: 'Exists' }],
      delayMs: stopMs,
      next: { finalizers: { empty: true }, delete: true },
    }),
  ]
}

/** The usual 4 at once would be what a burst of starts waits for. Where one of these is given, none has a default. */
const CONFIGURATION = {
  apiVersion: 'config.kwok.x-k8s.io/v1alpha1',
  kind: 'KwokConfiguration',
  options: {
    podPlayStageParallelism: 64,
    nodePlayStageParallelism: 16,
    nodeLeaseParallelism: 4,
    podsOnNodeSyncParallelism: 1,
    enableDebuggingHandlers: true,
  },
}

/** What `kubectl logs` shows of every container. */
const logs = (file: string): object => ({
  apiVersion: 'kwok.x-k8s.io/v1alpha1',
  kind: 'ClusterLogs',
  metadata: { name: 'containers' },
  spec: { logs: [{ logsFile: file }] },
})

/** A configuration file of KWOK: documents of YAML, of which JSON is a part. @param logFile what containers have said */
export const kwokFile = (times: StageTimes, logFile: string): string =>
  [CONFIGURATION, logs(logFile), ...stagesOf(times)].map((document) => JSON.stringify(document)).join('\n---\n')

/** What every container of a fake node says, as a container runtime writes it; written now: who asks for the last minutes gets it. */
export const containerLog = (): string => {
  const time = new Date().toISOString().replace('Z', '000000Z')
  return Array.from({ length: 300 }, (_, i) => `${time} stdout F line ${i + 1} of a fake container\n`).join('')
}
