import http from 'node:http'
import https from 'node:https'
import { gatewayRoot } from '../domain/gateway.ts'

/** The gateway of a bound session. */
export type Gateway = { base_url: string; api_key: string }

const connectTimeoutMs = 5_000
const agents = { 'http:': new http.Agent({ keepAlive: true }), 'https:': new https.Agent({ keepAlive: true }) }

/** A request as it goes on to the gateway. */
export type Call = {
  method: string
  path: string
  /** Besides its key. */
  headers: Record<string, string>
  body: Buffer
  signal: AbortSignal
}

/** A network that forgets silent connections, after six minutes say, does not forget this one. */
const tcpKeepAliveMs = 30_000

/**
 * Sends a request on to the gateway; resolves with the head of its answer. There is no limit on the answer: models think for minutes.
 * @throws Error when nothing can be reached there
 */
export const forward = (
  gateway: Gateway,
  { method, path, headers, body, signal }: Call,
): Promise<http.IncomingMessage> =>
  new Promise((resolve, reject) => {
    const url = new URL(`${gatewayRoot(gateway.base_url)}${path}`)
    const secure = url.protocol === 'https:'
    const request = (secure ? https : http).request(url, {
      method,
      agent: secure ? agents['https:'] : agents['http:'],
      signal,
      headers: { ...headers, authorization: `Bearer ${gateway.api_key}`, 'content-length': body.length },
    })
    request.setSocketKeepAlive(true, tcpKeepAliveMs)
    request.once('socket', (socket) => {
      if (!socket.connecting) return
      const late = (): void =>
        void request.destroy(new Error(`no connection to ${url.host} within ${connectTimeoutMs} ms`))
      const timer = setTimeout(late, connectTimeoutMs)
      for (const event of [secure ? 'secureConnect' : 'connect', 'close']) socket.once(event, () => clearTimeout(timer))
    })
    request.once('response', resolve)
    request.once('error', reject)
    request.end(body)
  })
