import { randomUUID } from 'node:crypto'
import type { Logger } from '../../telemetry/log.ts'
import type { Handler } from '../http.ts'

const ACCEPTED = /^[\w.:-]{1,128}$/

/** @param given the caller's `X-Request-Id` */
export const requestIdOf = (given: unknown): string =>
  typeof given === 'string' && ACCEPTED.test(given) ? given : randomUUID()

/** Names each request: the caller's `X-Request-Id` when it is harmless, else a new one. It is in the reply, in error bodies and in every log line. */
export const requestId =
  (log: Logger): Handler =>
  (ctx, next) => {
    ctx.state.requestId = requestIdOf(ctx.get('x-request-id'))
    ctx.state.log = log.child({ request_id: ctx.state.requestId })
    ctx.set('X-Request-Id', ctx.state.requestId)
    return next()
  }
