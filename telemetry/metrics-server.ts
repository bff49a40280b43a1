import { once } from 'node:events'
import { createServer } from 'node:http'
import type { Metrics } from './metrics.ts'

export type MetricsServer = AsyncDisposable & { port: number }

/** Whether a process does its work, and what keeps it from that, each with what to do about it. */
export type ProcessReadiness = { ready: boolean; problems: { what: string; remedy: string }[] }

/**
 * Serves `GET /metrics` (Prometheus text), `GET /healthz` (200 while the process lives) and, for a process that has no other server, `GET /readyz` (200 or
 * 503, JSON), without authentication: give it a port that only the scraper reaches.
 * @param options.port 0: any free port
 */
export const startMetricsServer = async (options: {
  port: number
  host: string
  metrics: Metrics
  readiness?: () => ProcessReadiness
}): Promise<MetricsServer> => {
  const { metrics, readiness } = options
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost')
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.writeHead(405, { allow: 'GET, HEAD' }).end()
    } else if (pathname === '/healthz') {
      response.writeHead(200, { 'content-type': 'text/plain' }).end('ok\n')
    } else if (pathname === '/readyz' && readiness !== undefined) {
      const state = readiness()
      response.writeHead(state.ready ? 200 : 503, { 'content-type': 'application/json' }).end(JSON.stringify(state))
    } else if (pathname === '/metrics') {
      metrics.scrape().then(
        (text) => response.writeHead(200, { 'content-type': metrics.contentType }).end(text),
        () => response.writeHead(500).end(),
      )
    } else {
      response.writeHead(404).end()
    }
  })
  server.listen(options.port, options.host)
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the metrics server has no port')
  return {
    port: address.port,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}
