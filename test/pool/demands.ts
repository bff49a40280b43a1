import type { AgentDemand, PoolHealth } from '../../domain/pool.ts'

/** Agents as the pool's arithmetic sees them, at one moment. */

export const now = new Date('2026-11-21T09:00:00Z')
export const ago = (seconds: number): Date => new Date(now.getTime() - seconds * 1_000)
const ahead = (seconds: number): Date => ago(-seconds)

export const healthy: PoolHealth = { failures: 0, backoffUntil: null, breakerOpen: false, breakerReason: null }

export const agent = (agentId: string, over: Partial<AgentDemand> = {}): AgentDemand => ({
  agentId,
  deleted: false,
  recent: true,
  lastSessionAt: ago(60),
  perHour: 0,
  leadTimeMs: 12_000,
  health: healthy,
  ...over,
})

export const backingOff = (over: Partial<PoolHealth> = {}): PoolHealth => ({
  ...healthy,
  failures: 2,
  backoffUntil: ahead(8),
  ...over,
})
