import { leakedSandboxes, overdueSessions, pokePools, poolsToCheck, sessionToStart, silentPools } from '../db/flow.ts'
import { endSession } from '../db/session-end.ts'
import { liveSessions } from '../db/sessions.ts'
import type { LiveSession } from '../db/sessions.ts'
import { addOutbox } from '../db/outbox.ts'
import { terminalSandboxes } from '../db/terminal-usage.ts'
import { forgetDeliveries, overdueDeliveries } from '../db/webhook-deliveries.ts'
import {
  janitorHeartbeatMs,
  ledgerGraceMs,
  poolWedgedMs,
  sessionCreatingTimeoutMs,
  webhookOverdueMs,
} from '../domain/limits.ts'
import { sessionWorkflowId } from '../domain/names.ts'
import { ledgerChecked, type Repairs } from '../telemetry/events/ledger.ts'
import { sessionFailed } from '../telemetry/events/sessions.ts'
import { compareCheckpoints, noCheckpointRepairs } from './checkpoint-ledger.ts'
import type { ActivityDeps } from './deps.ts'
import { withHeartbeat } from './heartbeat.ts'
import { isOld, type Look, repair } from './repair.ts'
import { compareSandboxes, noSandboxRepairs } from './sandbox-ledger.ts'
import { expire } from './session.ts'
import { noteUsage } from './terminal-usage.ts'

const runningWorkflows = async (deps: ActivityDeps, type: string): Promise<Set<string>> => {
  const found = new Set<string>()
  const query = `WorkflowType = '${type}' AND ExecutionStatus = 'Running'`
  for await (const { workflowId } of deps.temporal.client.workflow.list({ query, pageSize: 1_000 }))
    found.add(workflowId)
  return found
}

const failOverdue = async (deps: ActivityDeps, { id, agent_id }: LiveSession): Promise<boolean> => {
  const code = 'start_timeout' as const
  const reason = 'The session did not become ready in time, and its workflow did not say so'
  const ended = await endSession(deps.sql, id, { status: 'failed', code, reason })
  if (ended?.changed !== true) return false
  const { spawn_mode } = ended.session
  sessionFailed(deps, { session_id: id, agent_id, code, reason, spawn_mode, starting: true })
  return true
}

/** Live sessions against workflows and deadlines. The list of workflows lags behind a little; starting one that runs changes nothing. */
const compareSessions = async (look: Look) => {
  const { deps } = look
  const live = (await liveSessions(deps.sql)).filter(({ created_at }) => isOld(created_at, ledgerGraceMs))
  const running = live.length === 0 ? new Set<string>() : await runningWorkflows(deps, 'session')
  const of = ({ id }: { id: string }): string => id
  const orphans = live.filter(({ id }) => !running.has(sessionWorkflowId(id)))
  const workflows_started = await repair(look, orphans, {
    of,
    do: async ({ id }) => {
      if ((await sessionToStart(deps.sql, id)) === null) return false
      await addOutbox(deps.sql, 'start_session', id)
      return true
    },
  })
  // Workflows end these by themselves, unless they are wedged.
  const overdue = live.filter(
    (one) => one.status === 'creating' && isOld(one.created_at, sessionCreatingTimeoutMs + ledgerGraceMs),
  )
  const sessions_failed = await repair(look, overdue, { of, do: (one) => failOverdue(deps, one) })
  const expired = await overdueSessions(deps.sql, ledgerGraceMs)
  const sessions_expired = await repair(look, expired, { of, do: ({ id }) => expire(deps, id) })
  return { workflows_started, sessions_failed, sessions_expired }
}

/** Every pool with something to do looks again; one that has not done so for long is ended and begun anew, which loses nothing. */
const wakePools = async (look: Look) => {
  const { deps } = look
  const hours = deps.config.pool.recentAgentHours
  const pools_restarted = await repair(look, await silentPools(deps.sql, hours, poolWedgedMs), {
    of: (agentId) => agentId,
    do: async (agent_id) => {
      const wedged = await deps.temporal.describePool(agent_id)
      if (wedged?.status !== 'RUNNING') return false
      deps.log.error({ event: 'pool_wedged', agent_id, ui_url: wedged.ui_url }, 'a pool decides nothing, restarting it')
      await deps.temporal.terminatePool(agent_id, 'It made no decision; the janitor starts it anew')
      return true
    },
  })
  await pokePools(deps.sql, await poolsToCheck(deps.sql, hours))
  return { pools_restarted }
}

/** Deliveries that nobody makes: asking a workflow that is there changes nothing. What is over long enough is forgotten. */
const careForDeliveries = async (look: Look) => {
  const { deps } = look
  const deliveries_started = await repair(look, await overdueDeliveries(deps.sql, webhookOverdueMs), {
    of: (id) => id,
    do: async (id) => {
      await addOutbox(deps.sql, 'deliver_webhook', id)
      return true
    },
  })
  const forgotten = await forgetDeliveries(deps.sql, deps.config.webhooks.retentionMs)
  if (forgotten > 0)
    deps.log.debug({ event: 'deliveries_forgotten', forgotten }, 'old deliveries of webhooks were removed')
  return { deliveries_started }
}

/** Terminals have no turns that would tell what was used. */
const addUpTerminals = async (look: Look): Promise<object> => {
  const { deps } = look
  await repair(look, await terminalSandboxes(deps.sql), {
    of: ({ name }) => name,
    do: (sandbox) => noteUsage(deps, sandbox),
  })
  return {}
}

/** A comparison that cannot be made, for instance because Temporal does not answer, keeps the others from nothing. */
const part = async <T extends object>(look: Look, nothing: T, compare: (look: Look) => Promise<T>): Promise<T> => {
  try {
    return await compare(look)
  } catch (error) {
    look.errors++
    look.deps.log.warn({ err: error }, 'the janitor could not compare everything')
    return nothing
  }
}

const sweep = async (deps: ActivityDeps): Promise<Repairs> => {
  const startedAt = Date.now()
  const look: Look = { deps, errors: 0 }
  const sessions = { workflows_started: 0, sessions_failed: 0, sessions_expired: 0 }
  const compared = {
    ...(await part(look, noSandboxRepairs, compareSandboxes)),
    ...(await part(look, sessions, compareSessions)),
    ...(await part(look, { pools_restarted: 0 }, wakePools)),
    ...(await part(look, { deliveries_started: 0 }, careForDeliveries)),
    ...(await part(look, {}, addUpTerminals)),
    ...(await part(look, noCheckpointRepairs, ({ deps }) => compareCheckpoints(deps))),
  }
  deps.outbox.kick()
  const leaked = await leakedSandboxes(deps.sql, ledgerGraceMs)
  const repairs = { ...compared, leaked, errors: look.errors }
  ledgerChecked(deps, { ...repairs, duration_ms: Date.now() - startedAt })
  return repairs
}

export const janitorActivities = (deps: ActivityDeps) => ({
  /** Compares rows, sandboxes and workflows, and puts right what does not agree. */
  sweep: (): Promise<Repairs> => withHeartbeat(janitorHeartbeatMs, () => sweep(deps)),
})
