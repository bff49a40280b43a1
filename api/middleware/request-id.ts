import { randomUUID } from 'node:crypto'
import type { Logger } from '../../telemetry/log.ts'
import type { Handler } from '../http.ts'

const ACCEPTED = /^[\w.:-]{1,128}$/

/** Names each request: the caller's `X-Request-Id` when it is harmless, else a new one. It is in the reply, in error bodies and in every log line. */
export const requestId =
  (log: Logger): Handler =>
  (ctx, next) => {
    const given = ctx.get('x-request-id')
    ctx.state.requestId = ACCEPTED.test(given) ? given : randomUUID()
    ctx.state.log = log.child({ request_id: ctx.state.requestId })
    ctx.set('X-Request-Id', ctx.state.requestId)
    return next()
  }
