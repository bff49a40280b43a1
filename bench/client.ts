import { setTimeout as sleep } from 'node:timers/promises'

/** The platform as its users see it. Every call is one HTTP request with the master key. */
export type Client = {
  url: string
  call<T>(method: string, path: string, body?: unknown): Promise<T>
  agent(body: object): Promise<string>
  session(agentId: string, query?: string): Promise<Session>
  end(sessionId: string): Promise<void>
  /** Sends a message and resolves when its reply is there. */
  send(sessionId: string, text: string): Promise<void>
  /** Asks to stop what runs; resolves when that is acknowledged. */
  abort(sessionId: string): Promise<void>
  /** Server-sent events of a session from their start, until `onEvent` says so or the signal does; `onOpen` is called when the stream is open. */
  events(sessionId: string, onEvent: (event: StreamEvent) => boolean, options?: StreamOptions): Promise<void>
}

export type Session = {
  id: string
  status: string
  spawn_mode: string
  claim_outcome: string
  /** Name of the sandbox. */
  task_arn: string | null
  /** Moments of the start, in milliseconds since the request was stored. */
  phases: Record<string, number>
}
/** `at`: when it was read, as `nowMs`. */
export type StreamEvent = { id: number | null; data: EventData; at: number }
export type EventData = { type?: string; event?: { type?: string; properties?: Record<string, unknown> } }
export type StreamOptions = { signal?: AbortSignal; onOpen?: () => void }

/** Milliseconds since the epoch with a fraction, comparable between processes of one machine. */
export const nowMs = (): number => performance.timeOrigin + performance.now()

/** Text that a harness streams, if the event holds some. */
export const deltaOf = ({ data }: StreamEvent): string | null => {
  if (data.event?.type !== 'message.part.delta') return null
  const delta = data.event.properties?.['delta']
  return typeof delta === 'string' ? delta : null
}

const readFrame = (block: string, at: number): StreamEvent | null => {
  const lines = block.split('\n')
  const data = lines.find((line) => line.startsWith('data: '))
  if (data === undefined) return null
  const id = lines.find((line) => line.startsWith('id: '))
  return { id: id === undefined ? null : Number(id.slice(4)), data: JSON.parse(data.slice(6)) as EventData, at }
}

export const createClient = (url: string, key: string): Client => {
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
  const base = `${url}/api/v1/managed_agents`
  const call = async <T>(method: string, path: string, body?: unknown): Promise<T> => {
    const response = await fetch(/^\/(api\/|healthz)/.test(path) ? `${url}${path}` : `${base}${path}`, {
      method,
      headers,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text.slice(0, 300)}`)
    return (text === '' ? null : JSON.parse(text)) as T
  }

  const events: Client['events'] = async (sessionId, onEvent, options = {}) => {
    const stop = new AbortController()
    const signal = options.signal === undefined ? stop.signal : AbortSignal.any([stop.signal, options.signal])
    const response = await fetch(`${base}/sessions/${sessionId}/events?follow=1`, { headers, signal })
    if (!response.ok || response.body === null) throw new Error(`GET events: ${response.status}`)
    options.onOpen?.()
    let rest = ''
    try {
      for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
        const at = nowMs()
        const blocks = (rest + text).split('\n\n')
        rest = blocks.pop() ?? ''
        for (const block of blocks) {
          const event = readFrame(block, at)
          if (event !== null && onEvent(event)) return
        }
      }
    } catch (error) {
      if (options.signal?.aborted !== true) throw error
    } finally {
      stop.abort()
    }
  }

  return {
    url,
    call,
    events,
    agent: async (body) => (await call<{ id: string }>('POST', '/agents', body)).id,
    session: (agentId, query = '') => call<Session>('POST', `/agents/${agentId}/session${query}`, { title: 'bench' }),
    end: async (sessionId) => void (await call('DELETE', `/sessions/${sessionId}`)),
    send: async (sessionId, text) => void (await call('POST', `/sessions/${sessionId}/message`, { text })),
    abort: async (sessionId) => void (await call('POST', `/sessions/${sessionId}/abort`)),
  }
}

/** Waits until `probe` gives something, looking every 20 ms. */
export const until = async <T>(
  what: string,
  deadlineMs: number,
  probe: () => Promise<T | null | undefined | false>,
): Promise<T> => {
  for (const end = performance.now() + deadlineMs; performance.now() < end;) {
    const found = await probe()
    if (found !== null && found !== undefined && found !== false) return found
    await sleep(20)
  }
  throw new Error(`Not within ${deadlineMs / 1_000} s: ${what}`)
}
