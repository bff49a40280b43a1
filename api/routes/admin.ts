import { adminStats } from '../../db/stats.ts'
import type { AdminStats as Stats } from '../../db/stats.ts'
import { janitorEveryMs } from '../../domain/limits.ts'
import type { ApiDeps } from '../deps.ts'
import { route } from '../route.ts'
import type { Route } from '../route.ts'
import { AdminStats } from '../schemas/admin.ts'

const minuteMs = 60_000

const hitRate = (outcomes: Stats['outcomes']): number | null => {
  const total = Object.values(outcomes).reduce((sum, count) => sum + count, 0)
  return total === 0 ? null : ((outcomes.hit ?? 0) + (outcomes.hit_shared ?? 0)) / total
}

const startOf = (stats: Stats, mode: 'warm' | 'cold'): AdminStats['sessions']['start']['warm'] => {
  const { spawn_mode: _, ...found } = stats.starts.find((one) => one.spawn_mode === mode) ?? {
    spawn_mode: mode,
    count: 0,
    p50_ms: null,
    p95_ms: null,
    p99_ms: null,
  }
  return found
}

const issuesOf = (stats: Stats): AdminStats['detected_issues'] =>
  stats.failing.map((pool) => ({
    code: 'warm_pool_backoff',
    severity: pool.breaker_open ? 'high' : 'med',
    message: pool.breaker_open
      ? `The pool of ${pool.agent_name ?? pool.agent_id} is switched off: ${pool.breaker_reason ?? 'it failed again and again'}.`
      : `The pool of ${pool.agent_name ?? pool.agent_id} waits until ${pool.backoff_until?.toISOString()} after ${pool.failures} failure(s).`,
    recommended_action: 'Look at the agent’s repository, set-up command and image; one good start closes it.',
    agent_id: pool.agent_id,
  }))

const total = ({ pools }: Stats): AdminStats['warm_pool']['counts'] => {
  const sum = (state: 'provisioning' | 'warm' | 'claimed' | 'dead'): number =>
    pools.reduce((soFar, pool) => soFar + pool[state], 0)
  return { provisioning: sum('provisioning'), warm: sum('warm'), claimed: sum('claimed'), dead: sum('dead') }
}

const present = ({ config }: ApiDeps, stats: Stats): AdminStats => ({
  warm_pool: {
    configured_size: config.pool.size,
    max_provisioning: config.pool.maxProvisioning,
    ttl_minutes: config.pool.ttlMs / minuteMs,
    recent_agent_hours: config.pool.recentAgentHours,
    counts: total(stats),
    by_agent: stats.pools.map((row) => ({ ...row, oldest_warm_at: row.oldest_warm_at?.toISOString() ?? null })),
    hit_rate: hitRate(stats.outcomes),
    outcomes: stats.outcomes,
    idle_sandbox_seconds: Math.round(stats.idle_sandbox_seconds),
  },
  sessions: {
    counts: { creating: 0, ready: 0, failed: 0, dead: 0, ...stats.sessions },
    by_agent: stats.sessions_by_agent,
    start: { warm: startOf(stats, 'warm'), cold: startOf(stats, 'cold') },
  },
  agents: { total: stats.agents },
  runtime: {
    namespace: config.k8s.namespace,
    harness_image: config.harness.images['opencode'] ?? '',
    // Local supervisors listen on whatever port is free.
    container_port: null,
    reconcile_interval_seconds: janitorEveryMs / 1_000,
    sandbox_driver: config.sandbox.driver,
  },
  detected_issues: issuesOf(stats),
})

export const adminRoutes = (deps: ApiDeps): Route[] => [
  route({
    method: 'get',
    path: '/api/v1/admin/stats',
    operationId: 'getStats',
    tag: 'platform',
    summary: 'What the warm pool costs and saves',
    replies: [{ status: 200, description: 'Statistics', schema: AdminStats }],
    async handle(ctx) {
      ctx.body = present(deps, await adminStats(deps.sql))
    },
  }),
]
