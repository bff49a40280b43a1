import { setTimeout as sleep } from 'node:timers/promises'
import { pendingMigrations } from '../../db/database.ts'
import { errorText, isAppError } from '../../domain/errors.ts'
import { clusterProbeMs, temporalProbeMs } from '../../domain/limits.ts'
import type { Problem, SandboxInspector } from '../../sandbox/inspector.ts'
import type { ApiDeps } from '../deps.ts'
import { route } from '../route.ts'
import type { Route } from '../route.ts'
import { Alive, Readiness, SandboxHealth } from '../schemas/health.ts'

type Check = Readiness['postgres']

const check = async (look: () => Promise<string | null>): Promise<Check> => {
  try {
    const problem = await look()
    return problem === null ? { ok: true } : { ok: false, error: problem }
  } catch (error) {
    // Anybody may ask: only what we say ourselves, nothing of hosts and users.
    return { ok: false, error: isAppError(error) ? error.message : 'could not be checked' }
  }
}

const said = ({ what, remedy }: Problem): string => `${what} ${remedy}`

/** Probes do not wait: what is not known by then is not well. */
const clusterCheck = async (inspector: SandboxInspector): Promise<Check> => {
  const waiting = new AbortController()
  const late = sleep(clusterProbeMs, null, { signal: waiting.signal }).catch(() => null)
  const health = await Promise.race([inspector.health(), late])
  waiting.abort()
  if (health === null) return { ok: false, error: 'The Kubernetes API server has not answered yet.' }
  return health.ok ? { ok: true } : { ok: false, error: health.problems.map(said).join(' ') }
}

const readiness = async (deps: ApiDeps): Promise<Readiness> => {
  const [postgres, migrations, temporal, cluster] = await Promise.all([
    check(async () => {
      await deps.sql.query('select 1')
      return null
    }),
    check(async () => {
      const pending = await pendingMigrations(deps.sql)
      return pending.length === 0 ? null : `not yet run: ${pending.join(', ')}; run bin/migrate.ts`
    }),
    check(async () => ((await deps.temporal.isReachable()) ? null : 'does not answer')),
    deps.inspector === null ? null : clusterCheck(deps.inspector),
  ])
  const usable = postgres.ok && migrations.ok && !deps.drain.aborted
  // Workers make sandboxes, not this process: without a cluster it hands out what is warm, and everything can be read.
  const whole = temporal.ok && cluster?.ok !== false
  const checks = { postgres, migrations, temporal, ...(cluster === null ? {} : { cluster }) }
  return { status: usable ? (whole ? 'ready' : 'degraded') : 'not_ready', ...checks }
}

/** A worker asks for work again after a minute at the latest. */
const pollerSilenceMs = 90_000

/** How many pollers of workers Temporal has heard lately. */
const workersSeen = async ({ temporal }: ApiDeps): Promise<number> => {
  const { connection, namespace, taskQueue } = temporal
  const { pollers } = await connection.withDeadline(Date.now() + temporalProbeMs, () =>
    connection.workflowService.describeTaskQueue({
      namespace,
      taskQueue: { name: taskQueue },
    }),
  )
  const since = (Date.now() - pollerSilenceMs) / 1_000
  return (pollers ?? []).filter(({ lastAccessTime }) => Number(lastAccessTime?.seconds ?? 0) > since).length
}

/** @returns how many workers there are, and what is wrong with that */
const workersHealth = async (deps: ApiDeps): Promise<{ workers: number; error: string | null }> => {
  try {
    const workers = await workersSeen(deps)
    return { workers, error: workers > 0 ? null : 'no worker asks Temporal for work; start bin/worker.ts' }
  } catch (error) {
    return { workers: 0, error: `Temporal does not answer: ${errorText(error)}` }
  }
}

const sandboxHealth = async (deps: ApiDeps): Promise<SandboxHealth> => {
  const startedAt = performance.now()
  const [{ workers, error }, cluster] = await Promise.all([workersHealth(deps), deps.inspector?.health() ?? null])
  const elapsed_ms = Math.round((performance.now() - startedAt) * 10) / 10
  const errors = [
    ...(cluster?.problems.map(({ what, detail, remedy }) => [what, detail, remedy].filter(Boolean).join(' ')) ?? []),
    ...(error === null ? [] : [error]),
  ]
  return {
    ok: errors.length === 0,
    driver: deps.config.sandbox.driver,
    workers,
    elapsed_ms,
    ...(cluster === null ? {} : { cluster }),
    ...(errors.length === 0 ? {} : { error: errors.join('; ') }),
  }
}

export const healthRoutes = (deps: ApiDeps): Route[] => [
  route({
    method: 'get',
    path: '/healthz',
    operationId: 'getHealth',
    tag: 'platform',
    summary: 'Whether the process lives',
    open: true,
    replies: [{ status: 200, description: 'It does', schema: Alive }],
    handle(ctx) {
      ctx.body = { status: 'ok' }
    },
  }),
  route({
    method: 'get',
    path: '/readyz',
    operationId: 'getReadiness',
    tag: 'platform',
    summary: 'Whether the process can serve',
    open: true,
    replies: [
      { status: 200, description: 'It can, perhaps degraded', schema: Readiness },
      { status: 503, description: 'It cannot; the body says what is missing', schema: Readiness },
    ],
    async handle(ctx) {
      const state = await readiness(deps)
      ctx.status = state.status === 'not_ready' ? 503 : 200
      ctx.body = state
    },
  }),
  route({
    method: 'get',
    path: '/api/v1/health/k8s',
    operationId: 'getSandboxHealth',
    tag: 'platform',
    summary: 'Whether sandboxes can be made',
    description:
      'Sandboxes are made by the workers, whatever the driver: this says whether there are any, and with SANDBOX_DRIVER=kubernetes whether the cluster answers and has what sandboxes need.',
    replies: [
      { status: 200, description: 'They can', schema: SandboxHealth },
      { status: 503, description: 'They cannot; the body says why', schema: SandboxHealth },
    ],
    async handle(ctx) {
      const state = await sandboxHealth(deps)
      ctx.status = state.ok ? 200 : 503
      ctx.body = state
    },
  }),
]
