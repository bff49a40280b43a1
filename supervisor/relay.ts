import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { errorText } from '../domain/errors.ts'
import type { TurnUsage } from '../domain/turn.ts'
import { type Dialect, type Json, isObject, textIn } from './dialects/dialect.ts'
import { writeSlowly } from './http.ts'
import { type Call, type Gateway, forward } from './upstream.ts'
import { type Meter, createMeter, dataReader } from './usage.ts'

/** What went through the loopback since `beginTurn`. `unreachable`: why the gateway could not be reached, if no answer has come from it since. */
export type TurnTraffic = { usage: TurnUsage; unreachable: string | null }

/** One request of the harness on its way to the gateway and back. */
export type Relay = {
  dialect: Dialect
  /** Path and query, of the loopback's own making. */
  path: string
  body: Buffer
  gateway: Gateway
  model: string
  traffic: TurnTraffic
  log(line: string): void
}

/** A gateway that is being restarted is given these pauses before a turn fails for it. */
const retryPausesMs = [200, 800]
/** Of an answer that is an error. */
const refusalBytesMax = 1_024 * 1_024

/** What is said to the gateway beside the request: versions and betas of the dialect. All else is between the harness and the loopback. */
const SENT_ON = ['content-type', 'anthropic-version', 'anthropic-beta', 'openai-beta']
/** What is said to the harness beside the answer: when to come again. */
const GIVEN_BACK = ['retry-after', 'retry-after-ms', 'x-should-retry', 'request-id']
/** LiteLLM: what an answer that is no stream has cost, in US dollars. */
const COST_HEADER = 'x-litellm-response-cost'

const pick = (headers: IncomingHttpHeaders, names: string[]): Record<string, string> =>
  Object.fromEntries(
    names.flatMap((name) => {
      const value = headers[name]
      return value === undefined ? [] : [[name, Array.isArray(value) ? value.join(', ') : value]]
    }),
  )

export const sendJson = (response: ServerResponse, status: number, body: object): void => {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

export const parsed = (body: Buffer): Json | null => {
  try {
    const value: unknown = JSON.parse(body.toString('utf8'))
    return isObject(value) ? value : null
  } catch {
    return null
  }
}

const bytesOf = async (answer: IncomingMessage, max: number): Promise<Buffer> => {
  const chunks: Buffer[] = []
  let size = 0
  for await (const bytes of answer as AsyncIterable<Buffer>) {
    chunks.push(bytes)
    if ((size += bytes.length) > max) break
  }
  return Buffer.concat(chunks)
}

/** What a gateway, or a proxy in front of it, says of a failure, in whichever form. */
const reasonIn = (text: string): string => {
  const body = parsed(Buffer.from(text))
  const error = body?.['error']
  const words = [isObject(error) ? error['message'] : error, body?.['message'], body?.['detail']]
  return words.map(textIn).find((each) => each !== '') ?? text.trim().slice(0, 500)
}

/** An error in the form of the dialect, else a harness shows none, or the wrong one. */
const passRefusal = async (answer: IncomingMessage, response: ServerResponse, dialect: Dialect): Promise<void> => {
  const status = answer.statusCode ?? 502
  const bytes = await bytesOf(answer, refusalBytesMax)
  const head = { ...pick(answer.headers, GIVEN_BACK), 'content-type': 'application/json' }
  const body = parsed(bytes)
  if (body !== null && dialect.isRefusal(body)) return void response.writeHead(status, head).end(bytes)
  const message = reasonIn(bytes.toString('utf8')) || `the gateway answered ${status}`
  response.writeHead(status, head).end(JSON.stringify(dialect.refuse({ status, message })))
}

/** Passes a stream on as it comes, after what it tells of its usage has been counted. */
const passStream = async (answer: IncomingMessage, response: ServerResponse, meter: Meter): Promise<void> => {
  const hear = dataReader((data) => meter.hear(data))
  const decoder = new TextDecoder()
  for await (const bytes of answer as AsyncIterable<Buffer>) {
    hear(decoder.decode(bytes, { stream: true }))
    await writeSlowly(response, bytes)
  }
  response.end()
}

const passOn = async (answer: IncomingMessage, response: ServerResponse, { dialect, traffic }: Relay) => {
  const status = answer.statusCode ?? 502
  if (status >= 400) return passRefusal(answer, response, dialect)
  const type = answer.headers['content-type'] ?? 'application/json'
  const head = { ...pick(answer.headers, GIVEN_BACK), 'content-type': type }
  const meter = createMeter(traffic.usage)
  if (type.startsWith('text/event-stream')) {
    response.writeHead(status, head)
    return passStream(answer, response, meter)
  }
  const bytes = await bytesOf(answer, Infinity)
  meter.cost(pick(answer.headers, [COST_HEADER])[COST_HEADER])
  meter.hear(bytes.toString('utf8'))
  response.writeHead(status, head).end(bytes)
}

const ask = async (gateway: Gateway, call: Call): Promise<IncomingMessage> => {
  for (const pauseMs of retryPausesMs) {
    try {
      return await forward(gateway, call)
    } catch (error) {
      if (call.signal.aborted) throw error
      await new Promise((resolve) => setTimeout(resolve, pauseMs))
    }
  }
  return forward(gateway, call)
}

/** Sends a request on with the real key and the real model, and its answer back. */
export const relay = async (request: IncomingMessage, response: ServerResponse, own: Relay): Promise<void> => {
  const { dialect, traffic } = own
  traffic.usage.requests += 1
  const body = parsed(own.body)
  const gone = new AbortController()
  response.once('close', () => gone.abort())
  let answer: IncomingMessage
  try {
    answer = await ask(own.gateway, {
      method: request.method ?? 'POST',
      path: own.path,
      headers: { 'content-type': 'application/json', ...pick(request.headers, SENT_ON) },
      body: body === null ? own.body : Buffer.from(JSON.stringify(dialect.rewrite(body, own.model))),
      signal: gone.signal,
    })
  } catch (error) {
    if (gone.signal.aborted) return
    traffic.unreachable = errorText(error)
    own.log(`the gateway cannot be reached: ${traffic.unreachable}`)
    const message = `gateway unreachable: ${traffic.unreachable}`
    // 400: a harness does not repeat it. What can be repeated was repeated above.
    return sendJson(response, 400, dialect.refuse({ status: 400, type: 'gateway_unreachable', message }))
  }
  traffic.unreachable = null
  await passOn(answer, response, own).catch((error: unknown) => {
    if (!gone.signal.aborted) throw error
  })
}
