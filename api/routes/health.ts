import { pendingMigrations } from '../../db/database.ts'
import { errorText } from '../../domain/errors.ts'
import type { ApiDeps } from '../deps.ts'
import { route } from '../route.ts'
import type { Route } from '../route.ts'
import { Alive, Readiness } from '../schemas/health.ts'

type Check = Readiness['postgres']

const check = async (look: () => Promise<string | null>): Promise<Check> => {
  try {
    const problem = await look()
    return problem === null ? { ok: true } : { ok: false, error: problem }
  } catch (error) {
    return { ok: false, error: errorText(error) }
  }
}

const readiness = async (deps: ApiDeps): Promise<Readiness> => {
  const [postgres, migrations, temporal] = await Promise.all([
    check(async () => {
      await deps.sql.query('select 1')
      return null
    }),
    check(async () => {
      const pending = await pendingMigrations(deps.db)
      return pending.length === 0 ? null : `not yet run: ${pending.join(', ')}; run bin/migrate.ts`
    }),
    check(async () => ((await deps.temporal.isReachable()) ? null : 'does not answer')),
  ])
  const usable = postgres.ok && migrations.ok && !deps.drain.aborted
  return { status: usable ? (temporal.ok ? 'ready' : 'degraded') : 'not_ready', postgres, migrations, temporal }
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
]
