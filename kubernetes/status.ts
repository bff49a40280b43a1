import type { FailureCode } from '../domain/session.ts'
import { isWebhookDown, refusalOf, webhookGraceMs } from './errors.ts'
import { ANNOTATION, LABEL, VAULT_CONTAINER } from './names.ts'
import { conditionOf } from './objects.ts'
import type { ContainerStatus, KubeObject, Node, Pod, Sandbox, SandboxApi } from './objects.ts'

/** All that is known of one sandbox at one moment; what is not there is undefined. */
export type Seen = {
  api: SandboxApi
  /** The `Sandbox`, or the plain Pod. */
  object: KubeObject | undefined
  pod: Pod | undefined
  /** undefined: there is none, or nothing is known of nodes. */
  node: Node | undefined
  /** Whether a missing node means that it is gone. */
  nodesKnown: boolean
}

/**
 * `failing`: it has failed unless it looks otherwise within `graceMs` of the first sight.
 * `running`: its containers run; whether it has booted only the supervisor knows.
 */
export type Verdict =
  | { is: 'starting'; phase: 'pod_pending' }
  | { is: 'running'; podUid: string; podIp: string; hostIp: string | null; ready: boolean }
  | { is: 'failing'; code: FailureCode; message: string; graceMs: number }
  | { is: 'failed'; code: FailureCode; message: string }

/** A registry, or a runtime, may be better in a moment; but whoever waits is to hear of a failure within 5 s of its first sight, reading the evidence included. */
const containerGraceMs = 3_000

const PULLING = new Set([
  'ErrImagePull',
  'ImagePullBackOff',
  'RegistryUnavailable',
  'ImageInspectError',
  'SignatureValidationFailed',
])
const NEVER_PULLED = new Set(['InvalidImageName', 'ErrImageNeverPull'])
const NOT_CREATED = new Set([
  'CreateContainerConfigError',
  'CreateContainerError',
  'RunContainerError',
  'PreCreateHookError',
])
/** What no second try changes. */
const HOPELESS_PULL = /not found|manifest unknown|denied|unauthorized|forbidden|does not exist|invalid reference/i

const failed = (code: FailureCode, message: string): Verdict => ({ is: 'failed', code, message })

const waitingVerdict = ({ name, state }: ContainerStatus, graceMs: number): Verdict | null => {
  const { reason = '', message } = state?.waiting ?? {}
  const text = `Container ${name}: ${reason}${message === undefined ? '' : `: ${message}`}`
  if (NEVER_PULLED.has(reason)) return failed('image_pull', text)
  if (PULLING.has(reason))
    return HOPELESS_PULL.test(message ?? '')
      ? failed('image_pull', text)
      : { is: 'failing', code: 'image_pull', message: text, graceMs }
  return NOT_CREATED.has(reason) ? { is: 'failing', code: 'setup_failed', message: text, graceMs } : null
}

const SAID = new Set<FailureCode>([
  'clone_failed',
  'setup_failed',
  'harness_exited',
  'gateway_unreachable',
  'vault_failed',
])

/** A supervisor that cannot boot leaves `{"code", "message"}` as the last line of its termination message. */
const lastWords = (message: string | undefined): { code: FailureCode; message: string } | null => {
  const line = message?.trim().split('\n').at(-1) ?? ''
  try {
    const said = JSON.parse(line) as { code?: FailureCode; message?: unknown } | null
    if (said?.code === undefined || !SAID.has(said.code)) return null
    return { code: said.code, message: typeof said.message === 'string' ? said.message : said.code }
  } catch {
    return null
  }
}

const HEAP_EXHAUSTED = 'JavaScript heap out of memory'

const terminatedVerdict = ({ name, state, lastState }: ContainerStatus): Verdict | null => {
  const ended = state?.terminated ?? lastState?.terminated
  if (ended === undefined) return null
  if (ended.reason === 'OOMKilled' || ended.message?.includes(HEAP_EXHAUSTED) === true)
    return failed('oom_killed', `Container ${name} ran out of memory.`)
  const said = lastWords(ended.message)
  if (said !== null) return failed(said.code, said.message)
  const how = `Container ${name} ended with code ${ended.exitCode}${ended.reason === undefined ? '' : ` (${ended.reason})`}`
  return failed(name === VAULT_CONTAINER ? 'vault_failed' : 'harness_exited', `${how}.`)
}

/** The worst first: memory, then what names its cause, then the rest. */
const rank = (verdict: Verdict): number => {
  if (verdict.is === 'failed') return verdict.code === 'oom_killed' ? 0 : verdict.code === 'harness_exited' ? 2 : 1
  return 3
}

const worst = (verdicts: (Verdict | null)[]): Verdict | null =>
  verdicts.filter((verdict) => verdict !== null).toSorted((a, b) => rank(a) - rank(b))[0] ?? null

/** Init containers end in order when they have done their work. */
const initVerdict = (status: ContainerStatus): Verdict | null =>
  status.state?.terminated?.exitCode === 0 ? null : terminatedVerdict(status)

const containersVerdict = ({ status }: Pod, graceMs: number): Verdict | null => {
  const inits = status?.initContainerStatuses ?? []
  const containers = status?.containerStatuses ?? []
  return worst([
    ...inits.map(initVerdict),
    ...containers.map(terminatedVerdict),
    ...[...inits, ...containers].map((one) => waitingVerdict(one, graceMs)),
  ])
}

const SANDBOX_OVER: Record<string, FailureCode> = {
  MultiplePods: 'sandbox_lost',
  SandboxExpired: 'sandbox_lost',
  SandboxSuspended: 'sandbox_lost',
  InvalidConfiguration: 'setup_failed',
}

/** What the controller says of a `Sandbox` that has no pod, or too many. */
const controllerVerdict = ({ status }: Sandbox): Verdict | null => {
  const ready = conditionOf(status?.conditions, 'Ready')
  if (ready?.status !== 'False') return null
  const message = `${ready.reason ?? ''}: ${ready.message ?? ''}`
  const over = SANDBOX_OVER[ready.reason ?? '']
  if (over !== undefined) return failed(over, message)
  if (ready.reason !== 'ReconcilerError') return null
  const code = refusalOf(0, ready.message ?? '')
  if (code === null) return null
  return isWebhookDown(message) ? { is: 'failing', code, message, graceMs: webhookGraceMs } : failed(code, message)
}

/**
 * Whether anything is heard of a node. `Unknown`: it is not. `False` is said by a kubelet that lives, for instance for a moment after its restart, while the pods run: if it goes
 * on the cluster evicts them, as long after as their toleration says.
 */
export const isHeard = (node: Node | undefined): boolean =>
  node !== undefined && conditionOf(node.status?.conditions, 'Ready')?.status !== 'Unknown'

/** What became of it with its node, if anything did. */
export const nodeVerdict = ({ pod, node, nodesKnown }: Seen): Verdict | null => {
  const name = pod?.spec?.nodeName
  if (name === undefined || !nodesKnown || isHeard(node)) return null
  if (node === undefined) return failed('sandbox_lost', `Its node ${name} is gone.`)
  const ready = conditionOf(node.status?.conditions, 'Ready')
  return failed('sandbox_lost', `Nothing is heard of its node ${name}: ${ready?.message ?? ready?.reason}`)
}

/** Said by whoever takes the pod away: eviction, preemption, a tainted node. */
const disruptionVerdict = (pod: Pod): Verdict | null => {
  const target = conditionOf(pod.status?.conditions, 'DisruptionTarget')
  if (target?.status === 'True')
    return failed('sandbox_lost', `It is being evicted: ${target.message ?? target.reason}`)
  if (pod.metadata.deletionTimestamp !== undefined) return failed('sandbox_lost', 'Its pod is being deleted.')
  return null
}

const endedVerdict = ({ status }: Pod): Verdict | null => {
  if (status?.phase !== 'Failed' && status?.phase !== 'Succeeded') return null
  const why = [status.reason, status.message].filter((text) => text !== undefined).join(': ')
  if (status.reason === 'Evicted' || status.reason === 'NodeLost' || status.reason === 'Preempting')
    return failed('sandbox_lost', why)
  // The kubelet refuses pods that its node has no room for.
  if (/^(OutOf|UnexpectedAdmissionError|NodeAffinity|Terminated|NodeShutdown)/.test(status.reason ?? ''))
    return failed('unschedulable', why)
  return failed('harness_exited', why === '' ? `Its pod ended (${status.phase}).` : why)
}

const pendingVerdict = (pod: Pod, graceMs: number): Verdict => {
  const scheduled = conditionOf(pod.status?.conditions, 'PodScheduled')
  if (scheduled?.status === 'False' && scheduled.reason === 'Unschedulable')
    return { is: 'failing', code: 'unschedulable', message: scheduled.message ?? 'No node has room for it.', graceMs }
  return { is: 'starting', phase: 'pod_pending' }
}

/** Whether it was up once, as its state says. */
export const wasUp = ({ metadata }: KubeObject): boolean => {
  const state = metadata.labels?.[LABEL.state]
  return state === 'ready' || state === 'claimed'
}

const allRun = (pod: Pod): boolean => {
  const statuses = pod.status?.containerStatuses ?? []
  return statuses.length > 0 && statuses.every(({ state }) => state?.running !== undefined)
}

/**
 * What the objects of a sandbox say together. Pure: the same objects give the same verdict, so it can be asked at each change.
 * @param graces how long it may be unschedulable
 */
export const verdictOf = (seen: Seen, graces: { unschedulableMs: number }): Verdict => {
  const { api, object, pod } = seen
  if (object === undefined) return failed('sandbox_lost', 'It was deleted.')
  if (object.metadata.deletionTimestamp !== undefined) return failed('sandbox_lost', 'It is being deleted.')
  const ofController = api === 'sandbox' ? controllerVerdict(object) : null
  if (ofController !== null) return ofController
  const podUid = object.metadata.annotations?.[ANNOTATION.podUid]
  if (pod === undefined)
    return podUid === undefined && !wasUp(object)
      ? { is: 'starting', phase: 'pod_pending' }
      : failed('sandbox_lost', 'Its pod was deleted.')
  if (podUid !== undefined && pod.metadata.uid !== podUid)
    return failed('sandbox_lost', 'Its pod was deleted, and another one made in its place.')
  const over =
    containersOver(pod) ??
    disruptionVerdict(pod) ??
    endedVerdict(pod) ??
    nodeVerdict(seen) ??
    containersVerdict(pod, containerGraceMs)
  if (over !== null) return over
  const { podIP, hostIP } = pod.status ?? {}
  if (!allRun(pod) || podIP === undefined || pod.metadata.uid === undefined)
    return pendingVerdict(pod, graces.unschedulableMs)
  const ready = conditionOf(pod.status?.conditions, 'Ready')?.status === 'True'
  return { is: 'running', podUid: pod.metadata.uid, podIp: podIP, hostIp: hostIP ?? null, ready }
}

/** Containers that ended by themselves tell more than what became of the pod; one that is being evicted is ended by the kubelet. */
const containersOver = (pod: Pod): Verdict | null => {
  const verdict = containersVerdict(pod, containerGraceMs)
  if (verdict?.is !== 'failed') return null
  const taken = disruptionVerdict(pod) !== null || pod.status?.reason === 'Evicted'
  return taken && verdict.code === 'harness_exited' ? null : verdict
}

/** A sandbox that was in use: whatever ended it, it is lost, unless memory did it. */
export const asLoss = (code: FailureCode): FailureCode => (code === 'oom_killed' ? code : 'sandbox_lost')
