import { marginalBenefit } from './demand.ts'
import { poolBackoffFirstMs, poolBackoffMaxMs, poolCheckMs, poolKeepFactor } from './limits.ts'

/**
 * The warm pool's arithmetic: data in, data out; `now` is an argument. `shares` divides one budget over the agents, `plan` says what one agent's
 * pool does next. The limits themselves are held where the row of a sandbox is inserted, so a stale plan can only ask for too much.
 */

/** How the template of an agent fares. */
export type PoolHealth = {
  failures: number
  backoffUntil: Date | null
  breakerOpen: boolean
  breakerReason: string | null
}

/** One agent as the division of the budget sees it. */
export type AgentDemand = {
  agentId: string
  deleted: boolean
  /** Had a session within the window. */
  recent: boolean
  lastSessionAt: Date | null
  /** Claims per hour, measured. */
  perHour: number
  /** From order to warm, measured; a guess for an agent that never had one. */
  leadTimeMs: number
  /** Sandboxes that its pool has, warm or being made. */
  held?: number
  health: PoolHealth
}

const mayStart = ({ health }: AgentDemand, now: Date): boolean =>
  health.backoffUntil === null || health.backoffUntil <= now

/** Whether an agent takes part in the division: used lately, not deleted, not backing off. */
export const isEligible = (agent: AgentDemand, now: Date): boolean =>
  agent.recent && !agent.deleted && mayStart(agent, now)

const mostRecentFirst = (a: AgentDemand, b: AgentDemand): number =>
  (b.lastSessionAt?.getTime() ?? 0) - (a.lastSessionAt?.getTime() ?? 0) || (a.agentId < b.agentId ? -1 : 1)

/** Most sandboxes of an agent: one probe while its breaker is open. */
const ceilingOf = (agent: AgentDemand): number => (agent.health.breakerOpen ? 1 : Number.POSITIVE_INFINITY)

/**
 * Divides the budget: one each, most recently used first, while it lasts; each further one goes where it saves most misses, which is
 * the agent with the greatest arrival rate × lead time for its size. Equal benefits (quiet agents) are served in turn, most recent first. What an agent
 * has counts for more than what another would have to start, or a place would go back and forth with every small change of the measures.
 * @returns agent id → sandboxes; every agent given is in it
 */
export const shares = (agents: AgentDemand[], budget: number, now: Date): Map<string, number> => {
  const result = new Map(agents.map((agent) => [agent.agentId, 0]))
  const eligible = agents.filter((agent) => isEligible(agent, now)).toSorted(mostRecentFirst)
  const served = eligible.slice(0, Math.max(0, budget))
  for (const { agentId } of served) result.set(agentId, 1)
  const shareOf = (agent: AgentDemand): number => result.get(agent.agentId) ?? 0
  for (let left = budget - served.length; left > 0; left--) {
    const open = served.filter((agent) => shareOf(agent) < ceilingOf(agent))
    const worth = (agent: AgentDemand): number =>
      marginalBenefit(shareOf(agent), agent) * (shareOf(agent) < (agent.held ?? 0) ? poolKeepFactor : 1)
    const best = open.reduce<AgentDemand | null>((winner, agent) => {
      if (winner === null) return agent
      const gain = worth(agent) - worth(winner)
      return gain > 0 || (gain === 0 && shareOf(agent) < shareOf(winner)) ? agent : winner
    }, null)
    if (best === null) break
    result.set(best.agentId, shareOf(best) + 1)
  }
  return result
}

/** A sandbox of the pool that is being made or waits. */
export type PooledSandbox = {
  id: string
  state: 'provisioning' | 'warm'
  templateHash: string
  createdAt: Date
  readyAt: Date | null
  /** Being replaced: still claimable until its replacement is warm. */
  retiring: boolean
}

export type PoolObservation = {
  share: number
  budget: number
  agent: AgentDemand
  templateHash: string
  ttlMs: number
  sandboxes: PooledSandbox[]
  /** Sandboxes that other pools want and may not start because of the limits. */
  wantedElsewhere: number
}

export type RetireReason = 'drift' | 'ttl' | 'surplus' | 'drain'
export type PoolPlan = {
  provision: number
  /** Sandboxes past their time to live: start a replacement of each, then retire it. */
  replace: string[]
  retire: { id: string; why: RetireReason }[]
  /** Look again after this, if nobody pokes. */
  nextCheckMs: number
  /** What is done, and why: shown to people. */
  decision: string
  reason: string
  /** Nothing is held and nothing is wanted: the pool may end. */
  finished: boolean
}

const oldestFirst = (a: PooledSandbox, b: PooledSandbox): number =>
  (a.readyAt ?? a.createdAt).getTime() - (b.readyAt ?? b.createdAt).getTime()
/** What is least use first: those still starting (the youngest first), then the oldest warm ones. */
const leastUseFirst = (a: PooledSandbox, b: PooledSandbox): number => {
  if (a.state !== b.state) return a.state === 'provisioning' ? -1 : 1
  return a.state === 'provisioning' ? oldestFirst(b, a) : oldestFirst(a, b)
}

const isExpired = (sandbox: PooledSandbox, ttlMs: number, now: Date): boolean =>
  sandbox.state === 'warm' && sandbox.readyAt !== null && now.getTime() - sandbox.readyAt.getTime() >= ttlMs

/** Which sandboxes go, and which stay. */
const retirements = (seen: PoolObservation, now: Date) => {
  const drifted = seen.sandboxes.filter((sandbox) => sandbox.templateHash !== seen.templateHash)
  const current = seen.sandboxes.filter((sandbox) => sandbox.templateHash === seen.templateHash)
  const fresh = current.filter((sandbox) => !sandbox.retiring)
  const old = current.filter((sandbox) => sandbox.retiring).toSorted(oldestFirst)
  const warm = fresh.filter((sandbox) => sandbox.state === 'warm').length
  // Of those being replaced, as many stay as there are warm ones missing.
  const broken = old.slice(0, Math.max(0, warm + old.length - seen.share))
  // Only what would start again: a pool that is switched off drains whatever its health.
  const backingOff = seen.budget > 0 && seen.agent.recent && !seen.agent.deleted && !mayStart(seen.agent, now)
  // A failing template cannot make new ones, so what is warm is kept unless others are waiting for the place.
  const over = backingOff ? Math.min(fresh.length, seen.wantedElsewhere) : Math.max(0, fresh.length - seen.share)
  const surplus = fresh.toSorted(leastUseFirst).slice(0, over)
  const why: RetireReason = seen.share === 0 && !backingOff ? 'drain' : 'surplus'
  const retire = [
    ...drifted.map(({ id }) => ({ id, why: 'drift' as const })),
    ...(backingOff ? [] : broken).map(({ id }) => ({
      id,
      why: seen.share === 0 ? ('drain' as const) : ('ttl' as const),
    })),
    ...surplus.map(({ id }) => ({ id, why })),
  ]
  const gone = new Set(retire.map(({ id }) => id))
  const stay = (list: PooledSandbox[]): PooledSandbox[] => list.filter(({ id }) => !gone.has(id))
  return { retire, backingOff, fresh: stay(fresh), old: stay(old) }
}

/** One at a time and make before break: nothing is replaced while something starts, or while another replacement is under way. */
const expiredOf = (fresh: PooledSandbox[], old: PooledSandbox[], seen: PoolObservation, now: Date): string[] => {
  if (old.length > 0 || fresh.length < seen.share || fresh.some(({ state }) => state === 'provisioning')) return []
  return fresh
    .filter((sandbox) => isExpired(sandbox, seen.ttlMs, now))
    .toSorted(oldestFirst)
    .slice(0, 1)
    .map(({ id }) => id)
}

const nextCheckOf = (fresh: PooledSandbox[], seen: PoolObservation, now: Date): number => {
  const moments = [
    ...fresh.flatMap(({ readyAt }) => (readyAt === null ? [] : [readyAt.getTime() + seen.ttlMs])),
    ...(seen.agent.health.backoffUntil === null ? [] : [seen.agent.health.backoffUntil.getTime()]),
  ]
  const waits = moments.map((moment) => moment - now.getTime()).filter((ms) => ms > 0)
  return Math.min(poolCheckMs, ...waits)
}

const count = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? '' : 's'}`

const reasonOf = (seen: PoolObservation, now: Date): string => {
  const { agent, share, budget } = seen
  const until = agent.health.backoffUntil
  if (agent.deleted) return 'the agent was deleted'
  if (budget === 0) return 'the pool is switched off (size 0)'
  if (!agent.recent) return 'no session within the window'
  if (until !== null && until > now)
    return `${count(agent.health.failures, 'failed start')} in a row, waiting until ${until.toISOString()}${agent.health.breakerReason === null ? '' : `: ${agent.health.breakerReason}`}`
  if (agent.health.breakerOpen)
    return `one probe after ${count(agent.health.failures, 'failed start')}: ${agent.health.breakerReason ?? 'no reason stored'}`
  if (share === 0) return `other agents were used more recently and take the whole budget of ${budget}`
  return `share ${share} of ${budget}, ${Math.round(agent.perHour * 10) / 10} sessions an hour, ${Math.round(agent.leadTimeMs / 100) / 10} s to make one`
}

const decisionOf = (acts: Pick<PoolPlan, 'provision' | 'replace' | 'retire'>, backingOff: boolean): string => {
  const parts = [
    ...(acts.provision > 0 ? [`start ${acts.provision}`] : []),
    ...(acts.replace.length > 0 ? [`replace ${acts.replace.length}`] : []),
    ...(['drift', 'ttl', 'surplus', 'drain'] as const).flatMap((why) => {
      const n = acts.retire.filter((one) => one.why === why).length
      return n === 0 ? [] : [`retire ${n} (${why})`]
    }),
  ]
  if (parts.length > 0) return parts.join(', ')
  return backingOff ? 'back off' : 'hold'
}

/** What one agent's pool does now. */
export const plan = (seen: PoolObservation, now: Date): PoolPlan => {
  const { retire, backingOff, fresh, old } = retirements(seen, now)
  const missing = backingOff ? 0 : Math.max(0, seen.share - fresh.length)
  const starting = fresh.filter(({ state }) => state === 'provisioning').length
  // After a failure one start at a time, until one succeeds.
  const provision = seen.agent.health.failures > 0 ? Math.min(missing, Math.max(0, 1 - starting)) : missing
  const replace = backingOff || seen.agent.health.failures > 0 ? [] : expiredOf(fresh, old, seen, now)
  return {
    provision,
    replace,
    retire,
    nextCheckMs: nextCheckOf(fresh, seen, now),
    decision: decisionOf({ provision, replace, retire }, backingOff),
    reason: reasonOf(seen, now),
    finished: seen.share === 0 && !backingOff && seen.sandboxes.length === retire.length,
  }
}

/**
 * How long an agent's pool waits after a failed start: doubles with each failure in a row, and half of it is random, so that pools of one bad
 * repository do not come back together. From `poolBreakerFailures` on the breaker is open, and one probe follows each wait.
 * @param failures failures in a row, this one included
 * @param random from 0 to 1
 */
export const backoff = (failures: number, random: number): number => {
  const full = Math.min(poolBackoffMaxMs, poolBackoffFirstMs * 2 ** Math.min(failures - 1, 30))
  return Math.round(full * (0.5 + random / 2))
}
