import { randomUUID } from 'node:crypto'
import { getAgentAny } from '../db/agents.ts'
import type { AgentRow } from '../db/entities/agent.ts'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import { litterOfPool, pokePools, pokeWaitingPools, retirePooled } from '../db/flow.ts'
import { poolSandboxes, poolSnapshot, recordDecision, recordPoolSuccess } from '../db/pool.ts'
import type { PoolAgent } from '../db/pool.ts'
import { getSandbox, reservePoolSandbox, sandboxWarm } from '../db/sandboxes.ts'
import { poolLeadTimeGuessMs, provisionHeartbeatMs } from '../domain/limits.ts'
import { sandboxName } from '../domain/names.ts'
import { plan, shares } from '../domain/pool.ts'
import type { AgentDemand, PooledSandbox, PoolObservation, PoolPlan } from '../domain/pool.ts'
import { poolDecided } from '../telemetry/events/pool.ts'
import { sandboxProvisioning, sandboxWarm as sandboxWarmEvent } from '../telemetry/events/sandboxes.ts'
import { templateNow } from './deps.ts'
import type { ActivityDeps } from './deps.ts'
import { withHeartbeat } from './heartbeat.ts'
import { startUp } from './sandbox.ts'
import { noteStartFailure } from './start-failure.ts'

/** What an agent's pool has decided, and what is to be done about it. */
export type PoolStep = {
  decision: string
  reason: string
  share: number
  warm: number
  /** Sandboxes that have to be started, or waited for: all that are being made. */
  provision: string[]
  /** Sandboxes that have to be removed. */
  remove: string[]
  nextCheckMs: number
  finished: boolean
}

/** Agents of the snapshot that are not in the window are there because they still hold sandboxes. */
const demandOf = (agent: PoolAgent, windowStart: number): AgentDemand => ({
  agentId: agent.agent_id,
  deleted: agent.deleted,
  recent: agent.last_session_at !== null && agent.last_session_at.getTime() > windowStart,
  lastSessionAt: agent.last_session_at,
  perHour: agent.arrivals,
  leadTimeMs: agent.lead_ms ?? poolLeadTimeGuessMs,
  held: agent.warm + agent.provisioning,
  health: {
    failures: agent.failures,
    backoffUntil: agent.backoff_until,
    breakerOpen: agent.breaker_open,
    breakerReason: agent.breaker_reason,
  },
})

/** An agent that is in no snapshot: it holds nothing and nobody used it lately. */
const dormant = (agent: AgentRow): AgentDemand => ({
  agentId: agent.id,
  deleted: agent.deleted_at !== null,
  recent: false,
  lastSessionAt: agent.last_session_at,
  perHour: 0,
  leadTimeMs: poolLeadTimeGuessMs,
  health: { failures: 0, backoffUntil: null, breakerOpen: false, breakerReason: null },
})

const pooledOf = (row: SandboxRow): PooledSandbox => ({
  id: row.id,
  state: row.state === 'warm' ? 'warm' : 'provisioning',
  templateHash: row.template_hash,
  createdAt: row.created_at,
  readyAt: row.ready_at,
  retiring: row.retiring,
})

/** The whole division of the budget, and this agent's part in it. */
const observe = async (deps: ActivityDeps, agent: AgentRow, templateHash: string, now: Date) => {
  const { size: budget, recentAgentHours, ttlMs } = deps.config.pool
  const [snapshot, sandboxes] = await Promise.all([
    poolSnapshot(deps.sql, recentAgentHours),
    poolSandboxes(deps.sql, agent.id),
  ])
  const windowStart = now.getTime() - recentAgentHours * 3_600_000
  const demands = snapshot.map((each) => demandOf(each, windowStart))
  const division = shares(demands, budget, now)
  const share = division.get(agent.id) ?? 0
  const others = snapshot.filter(({ agent_id }) => agent_id !== agent.id)
  const seen: PoolObservation = {
    share,
    budget,
    agent: demands.find(({ agentId }) => agentId === agent.id) ?? dormant(agent),
    templateHash,
    ttlMs,
    sandboxes: sandboxes.map(pooledOf),
    wantedElsewhere: others.reduce((sum, { want }) => sum + want, 0),
  }
  const lacks = (each: PoolAgent): number => (division.get(each.agent_id) ?? 0) - each.warm - each.provisioning
  const idsOf = (agents: PoolAgent[]): string[] => agents.map(({ agent_id }) => agent_id)
  // An agent that is in no snapshot has just left it.
  const before = snapshot.find(({ agent_id }) => agent_id === agent.id)?.share ?? Number.POSITIVE_INFINITY
  return {
    share,
    planned: plan(seen, now),
    sandboxes,
    /** Pools that hold more than is theirs now: they are asked to look when this one finds no room. */
    overfull: idsOf(others.filter((each) => lacks(each) < 0)),
    /** Pools to which goes what this one has no more. */
    heirs: share < before ? idsOf(others.filter((each) => lacks(each) > 0)) : [],
  }
}

/** @returns the row, or null when the limits leave no room */
const reserve = async (
  deps: ActivityDeps,
  agent: AgentRow,
  templateHash: string,
  replaces?: string,
): Promise<SandboxRow | null> => {
  const id = randomUUID()
  const { id: agentId, harness_id: harnessId, harness_image: image } = agent
  const { size: poolSize, maxProvisioning } = deps.config.pool
  const row = await reservePoolSandbox(
    deps.sql,
    {
      id,
      name: sandboxName(id),
      agentId,
      templateHash,
      harnessId,
      image,
      driver: deps.driver.kind,
      ...(replaces === undefined ? {} : { replaces }),
    },
    { poolSize, maxProvisioning },
  )
  if (row !== null) sandboxProvisioning(deps, { sandbox_id: id, agent_id: agentId, purpose: 'pool' })
  return row
}

/** Writes the rows that the plan asks for, as far as the limits allow. */
const reserveAll = async (
  deps: ActivityDeps,
  agent: AgentRow,
  templateHash: string,
  planned: PoolPlan,
): Promise<{ made: SandboxRow[]; want: number }> => {
  const made: SandboxRow[] = []
  // A replacement that finds no room waits for the next look; the one that it would replace still serves.
  for (const id of planned.replace) {
    const row = await reserve(deps, agent, templateHash, id)
    if (row !== null) made.push(row)
  }
  for (let want = planned.provision; want > 0; want--) {
    const row = await reserve(deps, agent, templateHash)
    if (row === null) return { made, want }
    made.push(row)
  }
  return { made, want: 0 }
}

/** Looks, decides, writes the decision down and changes the rows; sandboxes themselves are started and removed by the other activities. */
const reconcile = async (deps: ActivityDeps, agentId: string): Promise<PoolStep> => {
  const now = new Date()
  const agent = await getAgentAny(deps.sql, agentId)
  if (agent === null) return { ...NOTHING, reason: 'there is no such agent' }
  const { hash } = templateNow(deps, agent)
  const { share, planned, sandboxes, overfull, heirs } = await observe(deps, agent, hash, now)
  const retired: string[] = []
  for (const { id } of planned.retire) if ((await retirePooled(deps.sql, id)) !== null) retired.push(id)
  const { made, want } = await reserveAll(deps, agent, hash, planned)
  const { decision, reason } = planned
  await recordDecision(deps.sql, agentId, { share, decision, reason, want })
  await pokePools(deps.sql, [...heirs, ...(want > 0 ? overfull : [])])
  if (retired.length > 0) await pokeWaitingPools(deps.sql, agentId)
  if (heirs.length > 0 || want > 0 || retired.length > 0) deps.outbox.kick()
  const left = sandboxes.filter(({ id }) => !retired.includes(id))
  const starting = [...left.filter(({ state }) => state === 'provisioning'), ...made]
  const warm = left.filter((row) => row.state === 'warm' && !row.retiring).length
  const stale = planned.retire.filter(
    ({ id, why }) => (why === 'drift' || why === 'ttl') && retired.includes(id),
  ).length
  const counts = { warm, provisioning: starting.length, stale }
  poolDecided(deps, { agent_id: agentId, decision, reason, share, ...counts })
  return {
    decision,
    reason,
    share,
    warm,
    provision: starting.map(({ id }) => id),
    remove: await litterOfPool(deps.sql, agentId),
    nextCheckMs: planned.nextCheckMs,
    finished: planned.finished && starting.length === 0 && warm === 0,
  }
}

const NOTHING: PoolStep = {
  decision: 'end',
  reason: '',
  share: 0,
  warm: 0,
  provision: [],
  remove: [],
  nextCheckMs: 0,
  finished: true,
}

const provision = async (deps: ActivityDeps, sandboxId: string): Promise<void> => {
  const sandbox = await getSandbox(deps.sql, sandboxId)
  if (sandbox?.state !== 'provisioning') return
  const started = await startUp(deps, sandbox)
  if (started.is === 'failed') await noteStartFailure(deps, sandbox, started.failure)
  else if (started.is === 'up' && (await sandboxWarm(deps.sql, sandboxId, started.endpoint)) !== null) {
    const { agent_id, created_at } = sandbox
    sandboxWarmEvent(deps, { sandbox_id: sandboxId, agent_id, duration_ms: Date.now() - created_at.getTime() })
    await recordPoolSuccess(deps.sql, agent_id)
  }
  // However it ended, nothing is being started in its place any more.
  if ((await pokeWaitingPools(deps.sql, sandbox.agent_id)) > 0) deps.outbox.kick()
}

export const poolActivities = (deps: ActivityDeps) => ({
  reconcilePool: (agentId: string): Promise<PoolStep> => reconcile(deps, agentId),
  /** Starts a sandbox of the pool and waits until it is warm. A failed start is noted, and does not fail the activity. */
  provisionPooled: (sandboxId: string): Promise<void> =>
    withHeartbeat(provisionHeartbeatMs, () => provision(deps, sandboxId)),
})
