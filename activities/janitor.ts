import type { SandboxRow } from '../db/entities/sandbox.ts'
import { leakedSandboxes, pokePools, poolsToPoke, sessionToStart, silentPools, strandedSandboxes } from '../db/flow.ts'
import { endSandbox, liveSandboxes, sandboxesToRemove } from '../db/sandboxes.ts'
import { endSession } from '../db/session-end.ts'
import { liveSessions } from '../db/sessions.ts'
import { addOutbox } from '../db/outbox.ts'
import {
  janitorHeartbeatMs,
  ledgerGraceMs,
  poolWedgedMs,
  sandboxReadyTimeoutMs,
  sessionCreatingTimeoutMs,
} from '../domain/limits.ts'
import { sessionWorkflowId } from '../domain/names.ts'
import type { ListedSandbox } from '../sandbox/driver.ts'
import * as events from '../telemetry/events.ts'
import type { ActivityDeps } from './deps.ts'
import { withHeartbeat } from './heartbeat.ts'
import { noteFailure, removeEnded } from './sandbox.ts'

/** Counts of what was put right; all 0 when nothing was wrong. */
export type Repairs = {
  /** Rows of sandboxes that are not there any more. */
  rows_gone: number
  /** Sandboxes without a row, or whose row says that they are gone. */
  objects_removed: number
  /** Live sessions that had no workflow. */
  workflows_started: number
  /** Sandboxes that belonged to nobody. */
  sandboxes_released: number
  /** Sessions that should have failed long ago. */
  sessions_failed: number
  /** Pools whose workflow made no decision any more. */
  pools_restarted: number
  /** Sandboxes of ended sessions that are still there. */
  leaked: number
}

const isOld = (date: Date, ms: number): boolean => Date.now() - date.getTime() > ms

/** Since when a row has been in its state, as far as it says. */
const since = (row: SandboxRow): Date => row.claimed_at ?? row.ready_at ?? row.created_at

/** A row says that a sandbox lives, and there is none, or a dead one. One that is being made has whoever makes it, and a deadline. */
const noteLost = async (deps: ActivityDeps, row: SandboxRow, listed: ListedSandbox | undefined): Promise<boolean> => {
  if (row.state === 'provisioning') {
    if (!isOld(row.created_at, sandboxReadyTimeoutMs + ledgerGraceMs)) return false
    const evidence = await deps.driver.inspect(row.name)
    return noteFailure(deps, row, { code: 'start_timeout', message: 'It never became ready', evidence }, 'start')
  }
  if (listed?.alive === true || !isOld(since(row), ledgerGraceMs)) return false
  return noteFailure(deps, row, await deps.driver.lossOf(row.name), row.state === 'warm' ? 'warm' : 'session')
}

const count = async <T>(items: T[], repair: (item: T) => Promise<boolean>): Promise<number> => {
  let repaired = 0
  for (const item of items) if (await repair(item)) repaired++
  return repaired
}

/** Rows against sandboxes. */
const compareSandboxes = async (deps: ActivityDeps) => {
  // Sandboxes first: a row is always written before its sandbox is made, so what has no row here has none.
  const listed = await deps.driver.list()
  const rows = await liveSandboxes(deps.sql)
  const byName = new Map(listed.map((one) => [one.name, one]))
  const known = new Set(rows.map(({ name }) => name))
  const rows_gone = await count(
    rows.filter(({ state }) => state === 'provisioning' || state === 'warm' || state === 'claimed'),
    (row) => noteLost(deps, row, byName.get(row.name)),
  )
  const objects_removed = await count(
    listed.filter((one) => !known.has(one.name) && isOld(one.createdAt, ledgerGraceMs)),
    async ({ name }) => {
      await deps.driver.remove(name)
      return true
    },
  )
  const sandboxes_released = await count(
    await strandedSandboxes(deps.sql, ledgerGraceMs),
    async ({ id }) => (await endSandbox(deps.sql, id)) !== null,
  )
  // Whoever ended them should have removed them by now.
  for (const row of await sandboxesToRemove(deps.sql))
    if (isOld(row.ended_at ?? since(row), ledgerGraceMs)) await removeEnded(deps, row.id)
  return { rows_gone, objects_removed, sandboxes_released }
}

const runningWorkflows = async (deps: ActivityDeps, type: string): Promise<Set<string>> => {
  const found = new Set<string>()
  const query = `WorkflowType = '${type}' AND ExecutionStatus = 'Running'`
  for await (const { workflowId } of deps.temporal.client.workflow.list({ query, pageSize: 1_000 }))
    found.add(workflowId)
  return found
}

/** Live sessions against workflows. The list lags behind a little; starting one that runs changes nothing. */
const compareSessions = async (deps: ActivityDeps) => {
  const live = (await liveSessions(deps.sql)).filter(({ created_at }) => isOld(created_at, ledgerGraceMs))
  const running = live.length === 0 ? new Set<string>() : await runningWorkflows(deps, 'session')
  const workflows_started = await count(
    live.filter(({ id }) => !running.has(sessionWorkflowId(id))),
    async ({ id }) => {
      if ((await sessionToStart(deps.sql, id)) === null) return false
      await addOutbox(deps.sql, 'start_session', id)
      return true
    },
  )
  // The workflow ends these by itself, unless it is wedged.
  const sessions_failed = await count(
    live.filter((one) => one.status === 'creating' && isOld(one.created_at, sessionCreatingTimeoutMs + ledgerGraceMs)),
    async ({ id, agent_id }) => {
      const code = 'start_timeout' as const
      const reason = 'The session did not become ready in time, and its workflow did not say so'
      const ended = await endSession(deps.sql, id, { status: 'failed', code, reason })
      if (ended?.changed !== true) return false
      const { spawn_mode } = ended.session
      events.sessionFailed(deps, { session_id: id, agent_id, code, reason, spawn_mode, starting: true })
      return true
    },
  )
  return { workflows_started, sessions_failed }
}

/** Every pool with something to do looks again; one that has not done so for long is ended and begun anew, which loses nothing. */
const wakePools = async (deps: ActivityDeps): Promise<{ pools_restarted: number }> => {
  const hours = deps.config.pool.recentAgentHours
  const pools_restarted = await count(await silentPools(deps.sql, hours, poolWedgedMs), async (agentId) => {
    const wedged = await deps.temporal.describePool(agentId)
    if (wedged?.status !== 'RUNNING') return false
    deps.log.error(
      { event: 'pool_wedged', agent_id: agentId, ui_url: wedged.ui_url },
      'a pool decides nothing, restarting it',
    )
    await deps.temporal.terminatePool(agentId, 'It made no decision; the janitor starts it anew')
    return true
  })
  await pokePools(deps.sql, await poolsToPoke(deps.sql, hours))
  return { pools_restarted }
}

const sweep = async (deps: ActivityDeps): Promise<Repairs> => {
  const sandboxes = await compareSandboxes(deps)
  const sessions = await compareSessions(deps)
  const pools = await wakePools(deps)
  deps.outbox.kick()
  const leaked = await leakedSandboxes(deps.sql, ledgerGraceMs)
  const repairs = { ...sandboxes, ...sessions, ...pools, leaked }
  events.ledgerChecked(deps, repairs)
  return repairs
}

export const janitorActivities = (deps: ActivityDeps) => ({
  /** Compares rows, sandboxes and workflows, and puts right what does not agree. */
  sweep: (): Promise<Repairs> => withHeartbeat(janitorHeartbeatMs, () => sweep(deps)),
})
