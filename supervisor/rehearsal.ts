import http from 'node:http'
import { text } from 'node:stream/consumers'
import type { BindRequest } from '../domain/supervisor-protocol.ts'

/** The first use of code is slow: it is compiled then. After this many it no longer is. */
const rounds = 3
/** Of one call; a machine too busy for it has a warm sandbox all the same. */
const timeoutMs = 2_000

/** Who listens on all addresses is reached on the loopback. */
const reachable: Record<string, string> = { '0.0.0.0': '127.0.0.1', '::': '::1' }

const NOBODY: BindRequest = {
  epoch: 0,
  session: { id: 'nobody', agent_id: 'nobody', title: null },
  env: { NAME: 'value' },
  prompt: '',
  model: 'none',
  gateway: { base_url: 'http://127.0.0.1', api_key: 'none' },
  files: [{ path: 'none', content_base64: '' }],
  history: [{ role: 'user', text: '' }],
}

type Listening = { host: string; port: number; token: string }
type Call = { method: string; path: string; body?: object }

const ask = ({ host, port, token }: Listening, { method, path, body }: Call): Promise<string> =>
  new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
    const request = http.request({
      host: reachable[host] ?? host,
      port,
      method,
      path,
      headers,
      agent: false,
      signal: AbortSignal.timeout(timeoutMs),
    })
    request.once('response', (response) => void text(response).then(resolve, reject))
    request.once('error', reject)
    request.end(body === undefined ? undefined : JSON.stringify(body))
  })

/** Goes the way of a bind and a turn through the server of a sandbox that is not ready for them, and is refused at its end: nothing happens but that. */
export const rehearse = async (at: Listening): Promise<void> => {
  for (let round = 0; round < rounds; round++) {
    await ask(at, { method: 'GET', path: '/healthz' })
    await ask(at, { method: 'POST', path: '/bind', body: NOBODY })
    await ask(at, { method: 'POST', path: '/turns', body: { turn_id: 'none', parts: [{ type: 'text' }] } })
  }
}
