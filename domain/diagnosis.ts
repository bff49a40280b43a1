import { notReadyOldMs, slowStartMs, turnQuietMs, workflowMissingMs } from './limits.ts'
import type { SessionStatus } from './session.ts'

export const ISSUE_CODES = [
  'dead_node_assigned',
  'stale_node_host_cache_suspect',
  'pod_image_pull_backoff',
  'pod_not_ready_old',
  'harness_unreachable',
  'node_oversubscribed',
  'service_missing',
  'warm_pool_empty_for_agent',
  'session_failed',
  'warm_pool_backoff',
  'workflow_missing',
  'turn_stuck',
  'needs_input',
  'limit_reached',
  'sandbox_lost',
] as const
export type IssueCode = (typeof ISSUE_CODES)[number]
export type Severity = 'high' | 'med' | 'info'
export type Issue = { code: IssueCode; severity: Severity; message: string; recommended_action?: string }

/** What is known of a session at one moment. `null` stands for "not known", never for "no". */
export type Facts = {
  now: Date
  /** Whether pod, node and service are as they are, or as they were when the sandbox was last looked at before it went. */
  seen: 'now' | 'before'
  session: {
    status: SessionStatus
    created_at: Date
    /** How often it went on in another sandbox. */
    moves: number
    sandbox_url: string | null
    failure_code: string | null
    failure_reason: string | null
    limit_reached: string | null
  }
  sandbox: {
    state: string
    failure_code: string | null
    failure_message: string | null
    /** The place where it lives says that it does not, and nobody has acted on that yet. */
    vanished: boolean
  } | null
  pod: {
    exists: boolean
    phase: string | null
    age_ms: number | null
    all_ready: boolean | null
    waiting_reasons: string[]
  }
  node: {
    exists: boolean
    /** The pod was put there, and there is no such node. */
    gone: boolean
    ready_status: string | null
    allocated_pct: { cpu: number; memory: number } | null
  }
  /** `expected`: sandboxes of this driver are reached through a Service of their own. */
  service: { expected: boolean; exists: boolean | null; node_port: number | null }
  probe: { reachable: boolean; error: string | null } | null
  pool: {
    configured_size: number
    warm: number
    provisioning: number
    backoff_until: Date | null
    breaker_open: boolean
    breaker_reason: string | null
    reason: string | null
  }
  /** null: Temporal did not answer. */
  workflow: { exists: boolean; status: string | null } | null
  turn: {
    started_at: Date | null
    last_event_at: Date | null
    /** What its harness asks and waits for, the oldest question. */
    asks: { id: string; title: string; expires_at: Date } | null
  } | null
}

const IMAGE_PULL = new Set(['ImagePullBackOff', 'ErrImagePull', 'ErrImageNeverPull'])

const seconds = (ms: number): string => `${Math.round(ms / 1_000)} s`

const sessionIssues = ({ session, sandbox }: Facts): Issue[] => {
  const issues: Issue[] = []
  if (session.status === 'failed')
    issues.push({
      code: 'session_failed',
      severity: 'high',
      message: `The session failed: ${session.failure_code ?? 'unknown'}${session.failure_reason === null ? '' : `: ${session.failure_reason}`}`,
      recommended_action: 'Remove the cause, then open a new session: an ended one stays ended.',
    })
  const live = session.status === 'creating' || session.status === 'ready'
  if (live && sandbox !== null && ['gone', 'failed', 'ending'].includes(sandbox.state))
    issues.push({
      code: 'sandbox_lost',
      severity: 'high',
      message: `The session's sandbox is ${sandbox.state}${sandbox.failure_message === null ? '' : ` (${sandbox.failure_message})`}; it is waiting for another one.`,
      recommended_action: 'Nothing: the session moves by itself. If it does not, look at its workflow.',
    })
  else if (live && sandbox?.vanished === true)
    issues.push({
      code: 'sandbox_lost',
      severity: 'high',
      message: 'The session’s sandbox does not run any more, and no worker has said so yet.',
      recommended_action:
        'Nothing: the session moves by itself within seconds. If it does not, check that a worker runs.',
    })
  else if (live && session.moves > 0)
    issues.push({
      code: 'sandbox_lost',
      severity: 'info',
      message: `The session went on in another sandbox ${session.moves === 1 ? 'once' : `${session.moves} times`}.`,
    })
  if (live && session.limit_reached !== null)
    issues.push({
      code: 'limit_reached',
      severity: 'info',
      message: `The session has reached ${session.limit_reached} and takes no more messages.`,
      recommended_action: `Raise ${session.limit_reached} with PATCH, or open a new session.`,
    })
  return issues
}

/** A harness that waits for a person says nothing, and is not stuck. */
const turnIssues = ({ now, session, turn }: Facts): Issue[] => {
  if (session.status !== 'ready' || turn === null) return []
  const { asks } = turn
  if (asks !== null)
    return [
      {
        code: 'needs_input',
        severity: 'info',
        message: `The harness waits for an answer: ${asks.title}. It is denied at ${asks.expires_at.toISOString()}.`,
        recommended_action: `Answer it: POST …/permissions/${asks.id}.`,
      },
    ]
  const quietMs = now.getTime() - (turn.last_event_at ?? turn.started_at ?? now).getTime()
  if (quietMs <= turnQuietMs) return []
  return [
    {
      code: 'turn_stuck',
      severity: 'med',
      message: `The running turn has been silent for ${seconds(quietMs)}.`,
      recommended_action: 'Abort it, or restart the session if that does not help.',
    },
  ]
}

const startIssues = ({ now, session, pod, service, probe }: Facts): Issue[] => {
  const issues: Issue[] = []
  const age = now.getTime() - session.created_at.getTime()
  if (
    session.status === 'creating' &&
    age > slowStartMs &&
    pod.phase === 'Running' &&
    service.node_port !== null &&
    session.sandbox_url === null
  )
    issues.push({
      code: 'stale_node_host_cache_suspect',
      severity: 'high',
      message: `The sandbox runs and has a port, and the session has had no address for ${seconds(age)}.`,
      recommended_action: 'Check that the node’s address is reachable from the worker; restart the session.',
    })
  const stuck = pod.waiting_reasons.find((reason) => IMAGE_PULL.has(reason))
  if (pod.exists && stuck !== undefined)
    issues.push({
      code: 'pod_image_pull_backoff',
      severity: 'high',
      message: `The image of the sandbox cannot be pulled: ${stuck}.`,
      recommended_action: 'Check the agent’s harness_image, the registry’s credentials and K8S_IMAGE_PULL_POLICY.',
    })
  if (pod.exists && pod.all_ready === false && pod.age_ms !== null && pod.age_ms > notReadyOldMs)
    issues.push({
      code: 'pod_not_ready_old',
      severity: 'med',
      message: `The sandbox is ${seconds(pod.age_ms)} old and still not ready.`,
      recommended_action: 'Read its log: the repository or the set-up command may be slow.',
    })
  if (pod.exists && pod.phase === 'Running' && probe !== null && !probe.reachable)
    issues.push({
      code: 'harness_unreachable',
      severity: 'high',
      message: `The sandbox runs and its supervisor does not answer${probe.error === null ? '' : `: ${probe.error}`}.`,
      recommended_action: 'Restart the session: it moves to a new sandbox.',
    })
  if (pod.exists && service.expected && service.exists === false)
    issues.push({
      code: 'service_missing',
      severity: 'high',
      message: 'The sandbox has no Service, so nothing can reach it from outside the cluster.',
      recommended_action: 'Restart the session.',
    })
  return issues
}

const oversubscribedPct = 150

const nodeIssues = ({ pod, node }: Facts): Issue[] => {
  const issues: Issue[] = []
  const notReady = node.exists && node.ready_status !== null && node.ready_status !== 'True'
  if (pod.exists && (notReady || node.gone))
    issues.push({
      code: 'dead_node_assigned',
      severity: 'high',
      message: `The sandbox is on a node that ${node.gone ? 'is gone' : `is not ready (Ready=${node.ready_status})`}.`,
      recommended_action: 'Restart the session: it moves to another node.',
    })
  const pct = node.allocated_pct
  const over = (['cpu', 'memory'] as const).find((what) => pct !== null && pct[what] > oversubscribedPct)
  if (over !== undefined)
    issues.push({
      code: 'node_oversubscribed',
      severity: 'med',
      message: `The node has promised ${pct?.[over]} % of its ${over}.`,
      recommended_action: 'Add nodes or lower the requests of sandboxes.',
    })
  return issues
}

const poolIssues = ({ now, pool, session, workflow }: Facts): Issue[] => {
  const issues: Issue[] = []
  if (pool.configured_size > 0 && pool.warm === 0 && pool.provisioning === 0)
    issues.push({
      code: 'warm_pool_empty_for_agent',
      severity: 'info',
      message: `No sandbox of this agent is warm or being made${pool.reason === null ? '' : `: ${pool.reason}`}.`,
      recommended_action: 'The next session starts cold. Raise WARM_POOL_SIZE if other agents use it up.',
    })
  const backingOff = pool.backoff_until !== null && pool.backoff_until > now
  if (pool.breaker_open || backingOff)
    issues.push({
      code: 'warm_pool_backoff',
      severity: 'med',
      message: pool.breaker_open
        ? `The agent's pool is switched off after failing again and again: ${pool.breaker_reason ?? 'no reason stored'}.`
        : `The agent's pool waits until ${pool.backoff_until?.toISOString()} after a failed start.`,
      recommended_action: 'Remove the cause (repository, set-up command, image); one good start closes it.',
    })
  const live = session.status === 'creating' || session.status === 'ready'
  const age = now.getTime() - session.created_at.getTime()
  const running = workflow !== null && workflow.exists && workflow.status === 'RUNNING'
  if (live && workflow !== null && !running && age > workflowMissingMs)
    issues.push({
      code: 'workflow_missing',
      severity: 'high',
      message: workflow.exists
        ? `The session's workflow is ${workflow.status}, and the session is still ${session.status}.`
        : 'The session has no workflow.',
      recommended_action: 'Check that a worker runs: the outbox and the janitor start it.',
    })
  return issues
}

const RANK: Record<Severity, number> = { high: 0, med: 1, info: 2 }

/** What is wrong with a session, the gravest first. */
export const detectIssues = (facts: Facts): Issue[] => {
  const ofPlace = [...startIssues(facts), ...nodeIssues(facts)].map((issue) =>
    facts.seen === 'now' ? issue : { ...issue, message: `As last seen, before it went: ${issue.message}` },
  )
  return [...sessionIssues(facts), ...turnIssues(facts), ...ofPlace, ...poolIssues(facts)].toSorted(
    (a, b) => RANK[a.severity] - RANK[b.severity],
  )
}
