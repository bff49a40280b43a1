import { setTimeout as sleep } from 'node:timers/promises'
import { Agent, request } from 'undici'
import type { Dispatcher } from 'undici'
import { errorText, isAppError } from '../domain/errors.ts'
import type { AppError } from '../domain/errors.ts'
import type { Credentials, Login, TlsOptions } from './credentials.ts'
import { errorOf, hasStatus, isKubeError, loginRefused, patienceMs, unavailable } from './errors.ts'
import type { KubeError } from './errors.ts'
import { createLimiter } from './limiter.ts'

type Query = Record<string, string | number | boolean | undefined>

export type KubeCall = {
  method?: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  path: string
  query?: Query
  body?: object
  signal?: AbortSignal
  /** All tries together. */
  timeoutMs?: number
  /** One try, where the usual is too short. */
  tryTimeoutMs?: number
  /** Told when a stream of lines has begun. */
  onOpen?: () => void
}

/** An API server, as far as the driver needs one: JSON, texts and streams of lines. */
export type KubeClient = AsyncDisposable & {
  readonly server: string
  /** @throws KubeError when the API server refuses, AppError `unavailable` when it does not answer in time, only that it cannot now, or accepts no credentials of ours */
  json<T>(call: KubeCall): Promise<T>
  text(call: KubeCall): Promise<string>
  /** Lines as they come, empty ones left out; ends when the server ends it, throws when the connection breaks or is silent for too long. */
  lines(call: KubeCall): AsyncIterable<string>
}

/** One try; healthy API servers answer in milliseconds, loaded ones in a second. */
const tryTimeoutMs = 5_000
const callTimeoutMs = 10_000
const connectTimeoutMs = 3_000
/** Of a watch; calls end before, unless they say how long a try may take. */
const headersTimeoutMs = 15_000
/** Bookmarks come once a minute: a watch that is silent for longer is dead, whatever TCP says. */
const watchSilenceMs = 90_000
const retryFirstMs = 100
const retryMaxMs = 2_000
/** Below the API server's own limits for one user; a start and its end are a dozen requests, and the pool's starts come in bursts. */
const limits = { perSecond: 100, burst: 200, atOnce: 32 }

const urlOf = (server: string, { path, query = {} }: KubeCall): string => {
  const url = new URL(server + path)
  for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, String(value))
  return url.href
}

/** Merge patches only: they need no knowledge of what is there. */
const contentType = (method: string): string =>
  method === 'PATCH' ? 'application/merge-patch+json' : 'application/json'

/** One `Agent` for as long as the certificates are the same: a new one would mean a TLS handshake for each request. */
const createAgents = () => {
  let known: { key: string; agent: Agent } | null = null
  const agentFor = (tls: TlsOptions): Agent => {
    const key = JSON.stringify(tls)
    if (known?.key === key) return known.agent
    // What is under way goes on; the old one closes when it is done.
    known?.agent.close().catch(() => undefined)
    const agent = new Agent({
      connect: { ...tls, timeout: connectTimeoutMs, keepAlive: true, keepAliveInitialDelay: 30_000 },
      allowH2: false,
      keepAliveTimeout: 30_000,
      headersTimeout: headersTimeoutMs,
      bodyTimeout: watchSilenceMs,
    })
    known = { key, agent }
    return agent
  }
  return { agentFor, destroy: async () => known?.agent.destroy() }
}

const backoffMs = (tries: number): number =>
  Math.min(retryMaxMs, retryFirstMs * 2 ** (tries - 1)) * (0.5 + Math.random() / 2)

async function* linesOf(body: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const bytes of body) {
    rest += decoder.decode(bytes, { stream: true })
    const lines = rest.split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) if (line !== '') yield line
  }
  if (rest !== '') yield rest
}

/** Whoever answers in place of the API server may repeat what it was sent, and what it says is logged. */
const withoutToken = (text: string, { authorization = '' }: Record<string, string>): string => {
  const token = authorization.slice(authorization.indexOf(' ') + 1)
  return token === '' ? text : text.replaceAll(token, '[hidden]')
}

/** The last answer, an error, and when the API server began to answer so. */
type Answer = { error: KubeError; since: number }

/** Whoever asked in vain is told what for, and whether there was an answer. */
const gaveUp = ({ method = 'GET', path }: KubeCall, error: unknown): AppError => {
  const asked = `${method} ${path}`
  const what = isKubeError(error) ? `answered ${asked} with ${error.status}` : `did not answer ${asked}`
  return unavailable(`the Kubernetes API server ${what}: ${errorText(error)}`, error)
}

/** One request, once; again only as somebody whose credentials were renewed. @throws KubeError for any answer but success, AppError `unavailable` for 401 */
const createSend = (credentials: Credentials, agentFor: (tls: TlsOptions) => Agent) => {
  const sendAs = async (
    { headers, tls }: Login,
    call: KubeCall,
    signal: AbortSignal | undefined,
  ): Promise<Dispatcher.ResponseData> => {
    const method = call.method ?? 'GET'
    const response = await request(urlOf(credentials.server, call), {
      dispatcher: agentFor(tls),
      method,
      headers: {
        ...headers,
        accept: 'application/json, */*',
        'user-agent': 'lap',
        ...(call.body === undefined ? {} : { 'content-type': contentType(method) }),
      },
      body: call.body === undefined ? null : JSON.stringify(call.body),
      signal: signal ?? null,
      ...(call.tryTimeoutMs === undefined ? {} : { headersTimeout: call.tryTimeoutMs }),
    })
    if (response.statusCode < 300) return response
    const retryAfter = response.headers['retry-after']
    const text = withoutToken(await response.body.text(), headers)
    throw errorOf(response.statusCode, text, typeof retryAfter === 'string' ? retryAfter : undefined)
  }
  return async (call: KubeCall, signal: AbortSignal | undefined): Promise<Dispatcher.ResponseData> => {
    for (let login = await credentials.current(); ;)
      try {
        return await sendAs(login, call, signal)
      } catch (error) {
        if (!hasStatus(error, 401)) throw error
        const renewed = await credentials.renew(login)
        if (renewed === login) throw loginRefused(error)
        login = renewed
      }
  }
}

/** Requests to one API server, within limits of our own and within what it asks for (429, `Retry-After`). */
export const createKubeClient = (credentials: Credentials): KubeClient => {
  const limiter = createLimiter(limits)
  const agents = createAgents()
  const send = createSend(credentials, agents.agentFor)

  /** @param whole ends with the call; waiting for one's turn is not the server's fault, so it does not count as its time */
  const sendOnce = async (what: KubeCall, whole: AbortSignal): Promise<string> => {
    const leave = await limiter.enter(whole)
    try {
      return await (
        await send(what, AbortSignal.any([whole, AbortSignal.timeout(what.tryTimeoutMs ?? tryTimeoutMs)]))
      ).body.text()
    } finally {
      leave()
    }
  }

  /** @returns how long to wait before the next try; null: there is no use in one */
  const pauseAfter = (answer: Answer | null, tries: number): number | null => {
    if (answer === null) return backoffMs(tries)
    const { error, since } = answer
    const waitMs = error.retryAfterMs ?? backoffMs(tries)
    if (performance.now() + waitMs > since + patienceMs(error)) return null
    if (error.status === 429) limiter.pause(waitMs)
    return waitMs
  }

  const call = async (what: KubeCall): Promise<string> => {
    const timeoutMs = Math.max(1, Math.ceil(what.timeoutMs ?? callTimeoutMs))
    const deadline = performance.now() + timeoutMs
    const over = AbortSignal.timeout(timeoutMs)
    const whole = what.signal === undefined ? over : AbortSignal.any([what.signal, over])
    let answer = null as Answer | null
    for (let tries = 1; ; tries++)
      try {
        return await sendOnce(what, whole)
      } catch (error) {
        what.signal?.throwIfAborted()
        // Nobody has credentials that are accepted: that is said by whoever has to renew them.
        if (isAppError(error)) throw error
        // A try that our own deadline has cut takes back nothing of what was answered before.
        if (isKubeError(error)) answer = { error, since: answer?.since ?? performance.now() }
        else if (!over.aborted) answer = null
        const pauseMs = pauseAfter(answer, tries)
        const last = answer?.error ?? error
        if (pauseMs === null) throw last
        if (performance.now() + pauseMs >= deadline) throw gaveUp(what, last)
        await sleep(pauseMs, undefined, what.signal === undefined ? {} : { signal: what.signal })
      }
  }

  return {
    server: credentials.server,
    json: async <T>(what: KubeCall) => JSON.parse(await call(what)) as T,
    text: call,
    async *lines(what) {
      // It is under way for minutes, and is not counted among those that may be.
      ;(await limiter.enter(what.signal))()
      const response = await send(what, what.signal)
      what.onOpen?.()
      yield* linesOf(response.body as AsyncIterable<Buffer>)
    },
    [Symbol.asyncDispose]: () => agents.destroy(),
  }
}
