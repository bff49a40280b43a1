import { pendingMigrations } from '../../db/database.ts'
import { errorText, isAppError } from '../../domain/errors.ts'
import { temporalProbeMs } from '../../domain/limits.ts'
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

const readiness = async (deps: ApiDeps): Promise<Readiness> => {
  const [postgres, migrations, temporal] = await Promise.all([
    check(async () => {
      await deps.sql.query('select 1')
      return null
    }),
    check(async () => {
      const pending = await pendingMigrations(deps.sql)
      return pending.length === 0 ? null : `not yet run: ${pending.join(', ')}; run bin/migrate.ts`
    }),
    check(async () => ((await deps.temporal.isReachable()) ? null : 'does not answer')),
  ])
  const usable = postgres.ok && migrations.ok && !deps.drain.aborted
  return { status: usable ? (temporal.ok ? 'ready' : 'degraded') : 'not_ready', postgres, migrations, temporal }
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

const sandboxHealth = async (deps: ApiDeps): Promise<SandboxHealth> => {
  const startedAt = performance.now()
  const { driver } = deps.config.sandbox
  const answer = (ok: boolean, workers: number, error?: string): SandboxHealth => {
    const elapsed_ms = Math.round((performance.now() - startedAt) * 10) / 10
    return { ok, driver, workers, elapsed_ms, ...(error === undefined ? {} : { error }) }
  }
  try {
    const workers = await workersSeen(deps)
    return workers > 0
      ? answer(true, workers)
      : answer(false, 0, 'no worker asks Temporal for work; start bin/worker.ts')
  } catch (error) {
    return answer(false, 0, `Temporal does not answer: ${errorText(error)}`)
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
    description: 'Sandboxes are made by the workers, whatever the driver; this says whether there are any.',
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
