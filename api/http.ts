import type { DefaultContext, Middleware, ParameterizedContext } from 'koa'
import type { Logger } from '../telemetry/log.ts'

/** What the middleware leaves for those below it. */
export type State = {
  requestId: string
  log: Logger
  /** Pattern of the path that answers, for instance `/api/v1/managed_agents/agents/:id`. */
  route?: string
}
export type Context = ParameterizedContext<State>
export type Handler = Middleware<State, DefaultContext, unknown>
