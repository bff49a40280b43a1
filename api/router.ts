import { Router } from '@koa/router'
import { isId } from '../domain/names.ts'
import { CodedError } from './middleware/errors.ts'
import { body } from './middleware/body.ts'
import { validate } from './middleware/validate.ts'
import { IdempotencyKey } from './route.ts'
import type { Context, Handler, State } from './http.ts'
import type { Route } from './route.ts'

const goneSignal = (ctx: Context): AbortSignal => {
  const gone = new AbortController()
  ctx.res.once('close', () => gone.abort())
  if (ctx.res.closed) gone.abort()
  return gone.signal
}

const idempotencyKey = (route: Route, ctx: Context): string | null => {
  const key = ctx.get('idempotency-key')
  return route.idempotent === undefined || key === '' ? null : validate(IdempotencyKey, key, 'header.Idempotency-Key')
}

/** Whom a request is about, for its lines in the log. */
const idsOf = ({ path }: Route, { id }: Record<string, string>): Record<string, string> => {
  if (id === undefined || !isId(id)) return {}
  if (path.includes('/webhooks/')) return { webhook_id: id }
  return path.includes('/sessions/') ? { session_id: id } : { agent_id: id }
}

const run =
  (route: Route): Handler =>
  async (ctx) => {
    ctx.state.route = route.path
    const { params } = ctx as Context & { params: Record<string, string> }
    ctx.state.log = ctx.state.log.child(idsOf(route, params))
    const query = route.query === undefined ? {} : validate(route.query, { ...ctx.query }, 'query')
    const { body: sent, rawBody } = ctx.request as unknown as { body?: unknown; rawBody?: string }
    await route.handle(ctx, {
      query,
      body: route.body === undefined ? undefined : validate(route.body, rawBody === '' ? {} : sent),
      params,
      idempotencyKey: idempotencyKey(route, ctx),
      signal: goneSignal(ctx),
    })
  }

/** Known paths with another method: 405 that names the right ones, in our shape. */
const otherMethod =
  (routes: Route[], router: Router<State>): Handler =>
  (ctx, next) => {
    const allowed = routes
      .filter((one) => router.match(ctx.path, one.method.toUpperCase()).route)
      .map((one) => one.method)
    if (allowed.length === 0) return next()
    const allow = [...new Set(allowed)].join(', ').toUpperCase()
    ctx.set('Allow', allow)
    throw new CodedError('not_found', 'method_not_allowed', `${ctx.method} is not allowed here; allowed: ${allow}`, 405)
  }

/** The whole API as one middleware: authentication, body, validation, handler, a column for each route of the table. */
export const createRouter = (routes: Route[], authenticate: (ctx: Context) => void): Handler[] => {
  const router = new Router<State>()
  for (const one of routes) {
    const column: Handler[] = []
    if (one.open === undefined)
      column.push((ctx, next) => {
        authenticate(ctx)
        return next()
      })
    if (one.body !== undefined) column.push(body as Handler)
    router[one.method](one.path, ...(column as never[]), run(one) as never)
  }
  return [router.routes() as unknown as Handler, otherMethod(routes, router)]
}
