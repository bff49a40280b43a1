import { getAgentAny } from '../../db/agents.ts'
import type { SandboxRow } from '../../db/entities/sandbox.ts'
import type { SessionRow } from '../../db/entities/session.ts'
import { sessionFacts } from '../../db/stats.ts'
import type { SessionFacts } from '../../db/stats.ts'
import { detectIssues } from '../../domain/diagnosis.ts'
import { errorText } from '../../domain/errors.ts'
import { sessionWorkflowId } from '../../domain/names.ts'
import type { ApiDeps } from '../deps.ts'
import { findSession } from '../find.ts'
import { sandboxFacts, viewOf } from '../present/diagnosis.ts'
import { route } from '../route.ts'
import type { Route } from '../route.ts'
import { liveEvidence, logLines, logTail, probeOf } from '../sandbox-look.ts'
import { Diagnosis } from '../schemas/diagnose.ts'
import { SandboxLogsQuery } from '../schemas/message.ts'

const BASE = '/api/v1/managed_agents/sessions/:id'
const tag = 'sessions'
const workflowOf = async (deps: ApiDeps, sessionId: string): Promise<Diagnosis['workflow']> => {
  const unknown = { id: sessionWorkflowId(sessionId), run_id: null, status: null, pending_activities: [], ui_url: null }
  try {
    const found = await deps.temporal.describeSession(sessionId)
    return found === null ? { ...unknown, reachable: true } : { ...found, reachable: true }
  } catch (error) {
    return { ...unknown, reachable: false, error: errorText(error) }
  }
}

const sessionSection = (session: SessionRow, sandbox: SandboxRow | null, now: Date): Diagnosis['session'] => ({
  session_id: session.id,
  agent_id: session.agent_id,
  status: session.status,
  task_arn: sandbox?.name ?? null,
  sandbox_url: sandbox?.endpoint ?? null,
  failure_reason: session.failure_reason,
  failure_code: session.failure_code,
  end_reason: session.end_reason,
  phase: session.phase,
  attempt: session.attempt,
  spawn_mode: session.spawn_mode,
  created_at: session.created_at.toISOString(),
  last_seen_at: session.last_activity_at.toISOString(),
  stopped_at: session.ended_at?.toISOString() ?? null,
  age_ms: now.getTime() - session.created_at.getTime(),
})

const poolSection = (
  deps: ApiDeps,
  session: SessionRow,
  { pool, poolState }: SessionFacts,
): Diagnosis['warm_pool'] => ({
  ...pool,
  configured_size: deps.config.pool.size,
  claim_outcome: session.claim_outcome,
  last_decision: poolState && {
    decision: poolState.decision,
    reason: poolState.reason,
    share: poolState.share,
    decided_at: poolState.decided_at.toISOString(),
    failures: poolState.failures,
    backoff_until: poolState.backoff_until?.toISOString() ?? null,
    breaker_open: poolState.breaker_open,
    breaker_reason: poolState.breaker_reason,
  },
})

const sandboxHistory = (sandbox: SandboxRow): Record<string, unknown> => ({
  id: sandbox.id,
  name: sandbox.name,
  state: sandbox.state,
  purpose: sandbox.purpose,
  epoch: sandbox.epoch,
  created_at: sandbox.created_at,
  ready_at: sandbox.ready_at,
  claimed_at: sandbox.claimed_at,
  ended_at: sandbox.ended_at,
  failure_code: sandbox.failure_code,
  failure_message: sandbox.failure_message,
  evidence: sandbox.evidence,
})

const diagnose = async (deps: ApiDeps, session: SessionRow): Promise<Diagnosis> => {
  const now = new Date()
  const facts = await sessionFacts(deps.sql, session)
  const sandbox = facts.sandboxes.find((one) => one.id === session.sandbox_id) ?? facts.sandboxes[0] ?? null
  const [agent, probe, live, workflow] = await Promise.all([
    getAgentAny(deps.sql, session.agent_id),
    probeOf(deps, sandbox),
    liveEvidence(deps, sandbox),
    workflowOf(deps, session.id),
  ])
  const view = viewOf(sandbox, { probe, live, now })
  const { pool, poolState, running } = facts
  const detected_issues = detectIssues({
    now,
    session: { ...session, moves: facts.moves, sandbox_url: sandbox?.endpoint ?? null },
    ...sandboxFacts(sandbox, view, probe),
    pool: {
      configured_size: deps.config.pool.size,
      warm: pool.warm,
      provisioning: pool.provisioning,
      backoff_until: poolState?.backoff_until ?? null,
      breaker_open: poolState?.breaker_open ?? false,
      breaker_reason: poolState?.breaker_reason ?? null,
      reason: poolState?.reason ?? null,
    },
    workflow: workflow.reachable ? { exists: workflow.run_id !== null, status: workflow.status } : null,
    turn: running && { started_at: running.started_at, last_event_at: facts.last_event_at, asks: facts.asks },
  })
  return {
    session: sessionSection(session, sandbox, now),
    agent: agent && {
      agent_id: agent.id,
      agent_name: agent.name,
      harness_id: agent.harness_id,
      model: agent.model,
      repo_url: agent.repo_url,
      branch: agent.branch,
    },
    source: view.source,
    seen_at: view.seen_at,
    ...view.sections,
    pod_logs_tail: await logTail(deps, sandbox, live),
    warm_pool: poolSection(deps, session, facts),
    harness_probe: probe,
    start: {
      spawn_mode: session.spawn_mode,
      phases: session.phases,
      total_ms: session.ready_at && session.ready_at.getTime() - session.created_at.getTime(),
    },
    sandboxes: facts.sandboxes.map(sandboxHistory),
    workflow,
    detected_issues,
    notes: { platform_logs: `Lines of api and worker about this session have "session_id":"${session.id}".` },
  }
}

const get = (deps: ApiDeps): Route =>
  route({
    method: 'get',
    path: `${BASE}/diagnose`,
    operationId: 'diagnoseSession',
    tag,
    summary: 'Why a session is slow or stuck',
    description:
      'Each section reports its own failure. `source` says whether the sections of the cluster are as they are now, or were kept when the sandbox went.',
    replies: [{ status: 200, description: 'What is known, and what is wrong', schema: Diagnosis }],
    errors: ['not_found'],
    async handle(ctx, { params }) {
      ctx.body = await diagnose(deps, await findSession(deps, params.id))
    },
  })

const sandboxLogs = (deps: ApiDeps): Route =>
  route({
    method: 'get',
    path: `${BASE}/sandbox_logs`,
    operationId: 'getSandboxLogs',
    tag,
    summary: 'The log of the sandbox',
    description: 'Of a sandbox that is gone, the last lines that were kept.',
    query: SandboxLogsQuery,
    replies: [{ status: 200, description: 'Lines, oldest first', contentType: 'text/plain' }],
    errors: ['not_found', 'gone', 'upstream', 'unavailable'],
    async handle(ctx, { params, query }) {
      const session = await findSession(deps, params.id)
      const { sandboxes } = await sessionFacts(deps.sql, session)
      const sandbox = sandboxes.find((one) => one.id === session.sandbox_id) ?? sandboxes[0] ?? null
      const lines = await logLines(deps, { sandbox, sessionId: session.id }, query)
      ctx.type = 'text/plain; charset=utf-8'
      ctx.body = lines.slice(-query.tailLines).join('\n')
    },
  })

export const diagnoseRoutes = (deps: ApiDeps): Route[] => [get(deps), sandboxLogs(deps)]
