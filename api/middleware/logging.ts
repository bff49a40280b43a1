import { requestAnswered } from '../../telemetry/events/http.ts'
import type { Metrics } from '../../telemetry/metrics.ts'
import type { Handler } from '../http.ts'

/** Asked every few seconds by whoever watches the process; only their failures are worth a line. */
const QUIET = new Set(['/healthz', '/readyz'])

const clientGone = 499

/** One line and one measurement a request. Streams are counted where they are opened and closed. */
export const logging =
  (metrics: Metrics): Handler =>
  async (ctx, next) => {
    const startedAt = performance.now()
    ctx.res.once('close', () => {
      // A client that went away before it was answered has no status; this is the usual one for the log.
      const status = ctx.res.headersSent ? ctx.res.statusCode : clientGone
      if (ctx.respond === false || (QUIET.has(ctx.path) && status < 500)) return
      requestAnswered(
        { log: ctx.state.log, metrics },
        {
          method: ctx.method,
          route: ctx.state.route ?? 'none',
          status,
          duration_ms: Math.round((performance.now() - startedAt) * 10) / 10,
        },
      )
    })
    await next()
  }
