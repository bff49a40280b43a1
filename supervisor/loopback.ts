import { randomBytes } from 'node:crypto'
import http from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { errorText } from '../domain/errors.ts'
import type { Health } from '../domain/supervisor-protocol.ts'
import { chat } from './dialects/chat.ts'
import type { Dialect } from './dialects/dialect.ts'
import { messages } from './dialects/messages.ts'
import { responses } from './dialects/responses.ts'
import { readBody, sameSecret } from './http.ts'
import { type TurnTraffic, parsed, relay, sendJson } from './relay.ts'
import type { Gateway } from './upstream.ts'
import { noUsage } from './usage.ts'
import { warmUpAnswer } from './warm-up.ts'

/** The one model a harness knows; the loopback puts the real name in its place. */
export const LOOPBACK_MODEL = 'lap'

/**
 * The only gateway a harness ever sees, in each of the dialects that harnesses speak. Before bind it answers the warm-up turn itself; after, it forwards with
 * the real key and the real model, and counts.
 */
export type Loopback = {
  /** Ends in `/v1`; clients of Anthropic want it without. */
  url: string
  /** As a bearer token or, for clients of Anthropic, as `x-api-key`. */
  key: string
  /** Whether a warm-up turn has come through with its tool's result. */
  warmedUp(): boolean
  connect(gateway: Gateway, model: string): void
  beginTurn(model: string): TurnTraffic
  /** Forwards nothing from now on, for that reason, in words for whoever uses the harness; null: it forwards again. */
  refuse(reason: string | null): void
  health(): Required<Pick<Health, 'model_idle_ms' | 'usage_outside_turns' | 'model_refusal'>>
  close(): Promise<void>
}

/** Claude Code asks it some twenty times around its first prompt, once for each tool, so it is answered here, roughly. */
const COUNT_TOKENS = '/v1/messages/count_tokens'
const CHARS_PER_TOKEN = 4
/** What is forwarded. The key may open more on the gateway, and the harness runs whatever the model says. */
const FORWARDED: Record<string, Dialect> = {
  '/v1/chat/completions': chat,
  '/v1/responses': responses,
  '/v1/messages': messages,
}

/** Longer than a harness keeps a connection that it does not use, so that none is closed under a request. */
const keepAliveMs = 120_000

/** An address of the loopback. The path is not the request's own words: a target such as `pany://x/v1/…` behind `http://gateway.com` would be another host's address. */
const addressOf = (request: IncomingMessage): { pathname: string; path: string } => {
  const { pathname, search } = new URL(request.url ?? '/', 'http://loopback')
  return { pathname, path: `${pathname}${search}` }
}

const knows = ({ authorization, 'x-api-key': apiKey }: http.IncomingHttpHeaders, key: string): boolean =>
  sameSecret(authorization, `Bearer ${key}`) || sameSecret(Array.isArray(apiKey) ? undefined : apiKey, key)

/** Clients of Anthropic say their version with every request. */
const isAnthropic = (headers: http.IncomingHttpHeaders): boolean => 'anthropic-version' in headers

/** The list of models in the form of who asks, or one of it. */
const modelsFor = (headers: http.IncomingHttpHeaders, one: boolean): object => {
  const created_at = '1970-01-01T00:00:00Z'
  const anthropic = { type: 'model', id: LOOPBACK_MODEL, display_name: LOOPBACK_MODEL, created_at }
  const openai = { id: LOOPBACK_MODEL, object: 'model', created: 0, owned_by: 'loopback' }
  if (!isAnthropic(headers)) return one ? openai : { object: 'list', data: [openai] }
  return one ? anthropic : { data: [anthropic], has_more: false, first_id: LOOPBACK_MODEL, last_id: LOOPBACK_MODEL }
}

type Own = { key: string; log: (line: string) => void }
type State = {
  gateway: Gateway | null
  model: string
  traffic: TurnTraffic
  warmedUp: boolean
  refusal: string | null
  /** Requests that are being forwarded, and when the last one was over. */
  open: number
  overAt: number | null
}

/** Milliseconds since the last request was over that was forwarded, 0 while one is not; null: none was. */
const idleMs = ({ open, overAt }: State): number | null => {
  if (open > 0) return 0
  return overAt === null ? null : Math.max(0, Date.now() - overAt)
}

const noteRequest = (state: State, response: ServerResponse): void => {
  state.open++
  response.once('close', () => {
    state.open--
    state.overAt = Date.now()
  })
}

/** What the loopback says in the place of a model. @returns whether the request came with the result of a tool */
const answerWarmUp = (response: ServerResponse, dialect: Dialect, bytes: Buffer): boolean => {
  const request = dialect.read(parsed(bytes) ?? {})
  const { contentType, body } = dialect.write(warmUpAnswer(request), request)
  response.writeHead(200, { 'content-type': contentType }).end(body)
  return request.hasToolResult
}

const handler =
  ({ key, log }: Own, state: State) =>
  async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    // Claude Code looks whether its gateway is there, without a key.
    if (request.method === 'HEAD' && request.url === '/') return void response.writeHead(200).end()
    const { pathname, path } = addressOf(request)
    const dialect = FORWARDED[pathname]
    const inForm = dialect ?? (pathname === COUNT_TOKENS || isAnthropic(request.headers) ? messages : chat)
    const refuse = (status: number, message: string): void =>
      sendJson(response, status, inForm.refuse({ status, message }))
    if (!knows(request.headers, key)) return refuse(401, 'unknown key')
    if (request.method === 'GET' && (pathname === '/v1/models' || pathname === `/v1/models/${LOOPBACK_MODEL}`))
      return sendJson(response, 200, modelsFor(request.headers, pathname !== '/v1/models'))
    if (request.method !== 'POST' || (dialect === undefined && pathname !== COUNT_TOKENS))
      return refuse(404, 'only model calls pass here')
    const body = await readBody(request)
    if (dialect === undefined)
      return sendJson(response, 200, { input_tokens: Math.ceil(body.toString('utf8').length / CHARS_PER_TOKEN) })
    const { gateway, model, traffic, refusal } = state
    if (gateway !== null) {
      // 400: a harness does not repeat it.
      if (refusal !== null)
        return sendJson(response, 400, dialect.refuse({ status: 400, type: 'limit_reached', message: refusal }))
      noteRequest(state, response)
      return relay(request, response, { dialect, path, body, gateway, model, traffic, log })
    }
    if (answerWarmUp(response, dialect, body)) state.warmedUp = true
  }

const nothing = (): TurnTraffic => ({ usage: noUsage(), unreachable: null })

export const startLoopback = async (log: (line: string) => void): Promise<Loopback> => {
  const key = `lap-${randomBytes(24).toString('base64url')}`
  const outsideTurns = nothing()
  const state: State = {
    gateway: null,
    model: LOOPBACK_MODEL,
    traffic: outsideTurns,
    warmedUp: false,
    refusal: null,
    open: 0,
    overAt: null,
  }
  const handle = handler({ key, log }, state)
  const server = http.createServer((request, response) => {
    handle(request, response).catch((error: unknown) => {
      log(`loopback: ${errorText(error)}`)
      response.destroy()
    })
  })
  server.keepAliveTimeout = keepAliveMs
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    key,
    warmedUp: () => state.warmedUp,
    connect(gateway, model) {
      Object.assign(state, { gateway, model })
    },
    beginTurn(model) {
      const traffic = nothing()
      Object.assign(state, { model, traffic })
      return traffic
    },
    refuse: (reason) => void (state.refusal = reason),
    health: () => ({
      model_idle_ms: idleMs(state),
      usage_outside_turns: outsideTurns.usage,
      model_refusal: state.refusal,
    }),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
