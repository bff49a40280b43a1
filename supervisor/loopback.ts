import { randomBytes } from 'node:crypto'
import http from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { errorText } from '../domain/errors.ts'
import type { TurnUsage } from '../domain/turn.ts'
import { readBody, sameSecret, writeSlowly } from './http.ts'
import { lineSplitter } from './log.ts'
import { type Gateway, forward } from './upstream.ts'
import { type Tokens, later, usageIn } from './usage.ts'
import { type ChatRequest, hasToolResult, warmUpReply } from './warm-up.ts'

/** The one model a harness knows; the loopback puts the real name in its place. */
export const LOOPBACK_MODEL = 'lap'

/** What went through the loopback since `beginTurn`. */
export type TurnTraffic = { usage: TurnUsage; unreachable: string | null }

/**
 * The only gateway a harness ever sees. Before bind it answers the warm-up turn itself; after, it forwards with the real key and the real
 * model, and counts.
 */
export type Loopback = {
  url: string
  key: string
  /** Whether a warm-up turn has come through with its tool's result. */
  warmedUp(): boolean
  connect(gateway: Gateway, model: string): void
  beginTurn(model: string): TurnTraffic
  close(): Promise<void>
}

const CHAT = '/v1/chat/completions'
/** What is forwarded. The key may open more on the gateway, and the harness runs whatever the model says. */
const FORWARDED = new Set([CHAT, '/v1/responses', '/v1/messages', '/v1/messages/count_tokens'])

/** A gateway that is being restarted is given these pauses before a turn fails for it. */
const retryPausesMs = [200, 800]

const count = (traffic: TurnTraffic, tokens: Tokens | null): void => {
  traffic.usage.input_tokens += tokens?.input ?? 0
  traffic.usage.output_tokens += tokens?.output ?? 0
}

const json = (response: ServerResponse, status: number, body: object): void => {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

/** Passes an answer on as it comes, and reads the usage that it ends with. */
const passOn = async (answer: IncomingMessage, response: ServerResponse, traffic: TurnTraffic): Promise<void> => {
  const type = answer.headers['content-type'] ?? 'application/json'
  response.writeHead(answer.statusCode ?? 502, { 'content-type': type })
  const streaming = type.startsWith('text/event-stream')
  const whole: Buffer[] = []
  let tokens: Tokens | null = null
  const hear = lineSplitter((line) => {
    if (line.startsWith('data: ')) tokens = later(tokens, usageIn(line.slice(6)))
  })
  const decoder = new TextDecoder()
  for await (const bytes of answer as AsyncIterable<Buffer>) {
    await writeSlowly(response, bytes)
    if (streaming) hear(decoder.decode(bytes, { stream: true }))
    else whole.push(bytes)
  }
  response.end()
  count(traffic, streaming ? tokens : usageIn(Buffer.concat(whole).toString('utf8')))
}

const parsed = (body: Buffer): ChatRequest | null => {
  try {
    return JSON.parse(body.toString('utf8')) as ChatRequest
  } catch {
    return null
  }
}

const rewritten = (path: string, request: ChatRequest, model: string): Buffer => {
  // Only this dialect has to be asked for the usage of a stream.
  const streaming = path === CHAT && request.stream === true ? { stream_options: { include_usage: true } } : {}
  return Buffer.from(JSON.stringify({ ...request, ...streaming, model }))
}

const nothing = (): TurnTraffic => ({ usage: { input_tokens: 0, output_tokens: 0, requests: 0 }, unreachable: null })

const ask = async (to: Gateway, call: Parameters<typeof forward>[1]): Promise<IncomingMessage> => {
  for (const pauseMs of retryPausesMs) {
    try {
      return await forward(to, call)
    } catch (error) {
      if (call.signal.aborted) throw error
      await new Promise((resolve) => setTimeout(resolve, pauseMs))
    }
  }
  return forward(to, call)
}

type Relay = {
  path: string
  to: Gateway
  model: string
  traffic: TurnTraffic
  body: Buffer
  log: (line: string) => void
}

const relay = async (
  request: IncomingMessage,
  response: ServerResponse,
  { path, to, model, ...own }: Relay,
): Promise<void> => {
  const { traffic, body, log } = own
  traffic.usage.requests += 1
  const chat = parsed(body)
  const gone = new AbortController()
  response.once('close', () => gone.abort())
  let answer: IncomingMessage
  try {
    answer = await ask(to, {
      method: request.method ?? 'POST',
      path,
      contentType: request.headers['content-type'] ?? 'application/json',
      body: chat === null ? body : rewritten(path, chat, model),
      signal: gone.signal,
    })
  } catch (error) {
    if (gone.signal.aborted) return
    traffic.unreachable = errorText(error)
    log(`the gateway cannot be reached: ${traffic.unreachable}`)
    const message = `gateway unreachable: ${traffic.unreachable}`
    // 400: a harness does not repeat it. What can be repeated was repeated above.
    return json(response, 400, { error: { message, type: 'gateway_unreachable' } })
  }
  await passOn(answer, response, traffic)
}

export const startLoopback = async (log: (line: string) => void): Promise<Loopback> => {
  const key = `lap-${randomBytes(24).toString('base64url')}`
  let warmedUp = false
  let gateway: Gateway | null = null
  let model = LOOPBACK_MODEL
  let traffic = nothing()

  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    if (!sameSecret(request.headers.authorization, `Bearer ${key}`))
      return json(response, 401, { error: { message: 'unknown key', type: 'unauthorized' } })
    if (request.method === 'GET' && request.url === '/v1/models')
      return json(response, 200, { object: 'list', data: [{ id: LOOPBACK_MODEL, object: 'model' }] })
    const { pathname, search } = new URL(request.url ?? '/', 'http://loopback')
    if (request.method !== 'POST' || !FORWARDED.has(pathname))
      return json(response, 404, { error: { message: 'only model calls pass here', type: 'not_found' } })
    const body = await readBody(request)
    // Not the request's own words: a target such as `pany://x/v1/…` behind `http://gateway.com` would be another host's address.
    const path = `${pathname}${search}`
    if (gateway !== null) return relay(request, response, { path, to: gateway, model, traffic, body, log })
    const chat = parsed(body) ?? {}
    if (hasToolResult(chat)) warmedUp = true
    const reply = warmUpReply(chat)
    response.writeHead(200, { 'content-type': reply.contentType }).end(reply.body)
  }

  const server = http.createServer((request, response) => {
    handle(request, response).catch((error: unknown) => {
      log(`loopback: ${errorText(error)}`)
      response.destroy()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    key,
    warmedUp: () => warmedUp,
    connect(to, name) {
      gateway = to
      model = name
    },
    beginTurn(name) {
      model = name
      traffic = nothing()
      return traffic
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
