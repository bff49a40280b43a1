import http from 'node:http'
import { text } from 'node:stream/consumers'
import type { BindRequest } from '../domain/supervisor-protocol.ts'

/** The first use of code is slow: it is compiled then. After this many it no longer is. */
const rounds = 3

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

type Call = { method: string; path: string; body?: object }

const ask = (port: number, token: string, { method, path, body }: Call): Promise<string> =>
  new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
    const request = http.request({ host: '127.0.0.1', port, method, path, headers, agent: false })
    request.once('response', (response) => void text(response).then(resolve, reject))
    request.once('error', reject)
    request.end(body === undefined ? undefined : JSON.stringify(body))
  })

/** Goes the way of a bind and a turn through the server of a sandbox that is not ready for them, and is refused at its end: nothing happens but that. */
export const rehearse = async (port: number, token: string): Promise<void> => {
  for (let round = 0; round < rounds; round++) {
    await ask(port, token, { method: 'GET', path: '/healthz' })
    await ask(port, token, { method: 'POST', path: '/bind', body: NOBODY })
    await ask(port, token, { method: 'POST', path: '/turns', body: { turn_id: 'none', parts: [{ type: 'text' }] } })
  }
}
