import http from 'node:http'
import { errorText } from '../../domain/errors.ts'
import { type HarnessEvent, HarnessGone } from '../../supervisor/harness.ts'

/** opencode refused a request. */
export class OpencodeRefused extends Error {
  override name = 'OpencodeRefused'
}

/** `timeoutMs` null: it may take as long as it takes. */
type Call = { method: 'GET' | 'POST' | 'PATCH' | 'DELETE'; path: string; body?: object; timeoutMs?: number | null }

/** opencode's HTTP API for one directory. Whatever it cannot answer because it is gone rejects with `HarnessGone`. */
export type Client = {
  call<T>(call: Call): Promise<T>
  /** Every event of the server until its stream breaks or the signal comes; `onOpen` when it has begun. */
  events(onEvent: (event: HarnessEvent) => void, options: { onOpen: () => void; signal: AbortSignal }): Promise<void>
  close(): void
}

/** All calls but a turn are answered within milliseconds; the first of a directory takes 1–2 s. */
const callTimeoutMs = 60_000
/** The server says something at least every 30 s. */
const streamSilenceMs = 90_000

type Server = { url: string; password: string; directory: string }

const sender = (server: Server, agent: http.Agent) => {
  const authorization = `Basic ${Buffer.from(`opencode:${server.password}`).toString('base64')}`
  return (call: Call, signal: AbortSignal | undefined): Promise<http.IncomingMessage> =>
    new Promise((resolve, reject) => {
      const url = new URL(call.path, server.url)
      url.searchParams.set('directory', server.directory)
      const body = call.body === undefined ? null : Buffer.from(JSON.stringify(call.body))
      const content = body === null ? {} : { 'content-type': 'application/json', 'content-length': body.length }
      const options = { method: call.method, agent, headers: { authorization, ...content } }
      const request = http.request(url, signal === undefined ? options : { ...options, signal })
      request.once('response', resolve)
      request.once('error', reject)
      request.end(body)
    })
}

/** Frames of a server-sent stream, each with one line of data. */
const frameReader = (onData: (data: string) => void) => {
  let rest = ''
  return (text: string): void => {
    const frames = (rest + text).split('\n\n')
    rest = frames.pop() ?? ''
    for (const frame of frames) {
      const data = frame.split('\n').find((line) => line.startsWith('data: '))
      if (data !== undefined) onData(data.slice(6))
    }
  }
}

/** The bus also carries records of opencode's own store, which say the same once more in another form: they have no `properties`. */
const eventIn = (data: string): HarnessEvent | null => {
  const { type, properties } = (JSON.parse(data) as { payload?: Partial<HarnessEvent> }).payload ?? {}
  if (typeof type !== 'string' || properties === null || typeof properties !== 'object') return null
  return { type, properties }
}

export const createClient = (server: Server): Client => {
  const agent = new http.Agent({ keepAlive: true })
  const send = sender(server, agent)
  return {
    async call<T>(call: Call): Promise<T> {
      const timeoutMs = call.timeoutMs === undefined ? callTimeoutMs : call.timeoutMs
      let status: number
      let text = ''
      try {
        const response = await send(call, timeoutMs === null ? undefined : AbortSignal.timeout(timeoutMs))
        status = response.statusCode ?? 500
        for await (const part of response.setEncoding('utf8') as AsyncIterable<string>) text += part
      } catch (error) {
        throw new HarnessGone(`${call.method} ${call.path}: ${errorText(error)}`, { cause: error })
      }
      if (status >= 300) throw new OpencodeRefused(`${call.method} ${call.path}: ${status} ${text.slice(0, 500)}`)
      return (text === '' ? null : JSON.parse(text)) as T
    },
    async events(onEvent, { onOpen, signal }) {
      // One stream for all directories: that of a directory would set it up, before there is a clone in it.
      const read = frameReader((data) => {
        const event = eventIn(data)
        if (event !== null) onEvent(event)
      })
      const response = await send({ method: 'GET', path: '/global/event' }, signal)
      if (response.statusCode !== 200) throw new OpencodeRefused(`GET /global/event: ${response.statusCode}`)
      response.socket.setTimeout(streamSilenceMs, () => void response.destroy(new Error('the events fell silent')))
      onOpen()
      for await (const part of response.setEncoding('utf8') as AsyncIterable<string>) read(part)
    },
    close: () => agent.destroy(),
  }
}
