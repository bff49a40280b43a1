import Koa from 'koa'
import type { ApiDeps } from './deps.ts'
import type { State } from './http.ts'
import { createAuth } from './middleware/auth.ts'
import { errors } from './middleware/errors.ts'
import { logging } from './middleware/logging.ts'
import { requestId } from './middleware/request-id.ts'
import type { Route } from './route.ts'
import { createRouter } from './router.ts'
import { adminRoutes } from './routes/admin.ts'
import { agentRoutes } from './routes/agents.ts'
import { checkpointRoutes } from './routes/checkpoints.ts'
import { diagnoseRoutes } from './routes/diagnose.ts'
import { eventRoutes } from './routes/events.ts'
import { healthRoutes } from './routes/health.ts'
import { messageRoutes } from './routes/messages.ts'
import { modelRoutes } from './routes/models.ts'
import { openApiRoutes } from './routes/openapi.ts'
import { permissionRoutes } from './routes/permissions.ts'
import { queueRoutes } from './routes/queue.ts'
import { sessionRoutes } from './routes/sessions.ts'
import { deliveryRoutes } from './routes/webhook-deliveries.ts'
import { webhookRoutes } from './routes/webhooks.ts'
import { terminalRoutes } from './routes/terminal.ts'

/** Every route of the API, in the order of the document. */
export const routeTable = (deps: ApiDeps): Route[] => {
  const routes: Route[] = [
    ...agentRoutes(deps),
    ...sessionRoutes(deps),
    ...messageRoutes(deps),
    ...queueRoutes(deps),
    ...permissionRoutes(deps),
    ...checkpointRoutes(deps),
    ...terminalRoutes(deps),
    ...eventRoutes(deps),
    ...diagnoseRoutes(deps),
    ...webhookRoutes(deps),
    ...deliveryRoutes(deps),
    ...adminRoutes(deps),
    ...modelRoutes(deps),
    ...healthRoutes(deps),
    ...openApiRoutes(deps, () => routes),
  ]
  return routes
}

/** The API as a Koa application; `bin/api.ts` listens with it. */
export const createApp = (deps: ApiDeps): Koa<State> => {
  const app = new Koa<State>()
  app.use(requestId(deps.log))
  app.use(logging(deps.metrics))
  app.use(errors)
  for (const handler of createRouter(routeTable(deps), createAuth(deps.config.masterKey))) app.use(handler)
  // What Koa itself reports is what a socket did after its answer had begun.
  app.on('error', (error: unknown) => deps.log.debug({ err: error }, 'connection error'))
  return app
}
