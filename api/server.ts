import { once } from 'node:events'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { drainPollMs, drainTimeoutMs, keepAliveTimeoutMs } from '../domain/limits.ts'
import { createApp } from './app.ts'
import type { ApiDeps } from './deps.ts'
import { wantsTerminal } from './terminal/admission.ts'
import { serveTerminals } from './terminal/server.ts'

/** The API, listening. */
export type ApiServer = {
  /** For instance `http://127.0.0.1:3000`. */
  url: string
  /** Accepts nothing more, tells streams and waits to come back, and gives requests in flight `drainTimeoutMs` to end. */
  drain(): Promise<void>
}

/** Connections whose last request is answered are closed as they become idle; what is left after the time is cut off. */
const close = async (server: Server): Promise<void> => {
  const over = new AbortController()
  const closed = once(server, 'close').finally(() => over.abort())
  server.close()
  const deadline = performance.now() + drainTimeoutMs
  while (!over.signal.aborted && performance.now() < deadline) {
    server.closeIdleConnections()
    await sleep(drainPollMs, undefined, { signal: over.signal }).catch(() => {})
  }
  server.closeAllConnections()
  await closed
}

/** @param address.port 0: any free one */
export const startServer = async (
  deps: Omit<ApiDeps, 'drain'>,
  address: { host: string; port: number },
): Promise<ApiServer> => {
  const draining = new AbortController()
  const drainable = { ...deps, drain: draining.signal }
  const handle = createApp(drainable).callback()
  const options = { keepAliveTimeout: keepAliveTimeoutMs, shouldUpgradeCallback: wantsTerminal }
  const server = createServer(options, (req, res) => void handle(req, res))
  const terminals = serveTerminals(server, drainable)
  server.listen(address.port, address.host)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const host = address.host.includes(':') ? `[${address.host}]` : address.host
  return {
    url: `http://${host}:${port}`,
    async drain() {
      draining.abort()
      await Promise.all([close(server), terminals.drained()])
    },
  }
}
