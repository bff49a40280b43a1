import { createHash, randomUUID, timingSafeEqual } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ChatRequest, DEMO_MODEL, type DemoReply, demoReply, tokensIn } from './reply.ts'

/** Long conversations with tool outputs are a few MB. */
const bodyMaxBytes = 32 * 1024 * 1024
/** Pause between two pieces of a stream, so that streaming can be seen. */
const pieceDelayMs = 10
/** A long answer is sent in at most so many pieces. */
const piecesMax = 60

export type DemoGateway = AsyncDisposable & { url: string; close(): Promise<void> }

/** An error in OpenAI's shape. */
class GatewayError extends Error {
  readonly status: number
  readonly code: string
  constructor(status: number, code: string, message: string) {
    super(message)
    this.status = status
    this.code = code
  }
}

const sendJson = (response: ServerResponse, status: number, body: unknown): void => {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
const sameKey = (given: string, key: string): boolean => timingSafeEqual(digest(given), digest(key))

const requireKey = (request: IncomingMessage, key: string): void => {
  const given = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? ''
  if (!sameKey(given, key)) throw new GatewayError(401, 'invalid_api_key', 'The key is wrong or missing.')
}

const readBody = async (request: IncomingMessage): Promise<string> => {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > bodyMaxBytes) throw new GatewayError(413, 'request_too_large', 'The request is too large.')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

const isChatRequest = (body: unknown): body is ChatRequest =>
  typeof body === 'object' &&
  body !== null &&
  'model' in body &&
  typeof body.model === 'string' &&
  'messages' in body &&
  Array.isArray(body.messages)

const parseRequest = (text: string): ChatRequest => {
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch {
    throw new GatewayError(400, 'invalid_json', 'The body is not JSON.')
  }
  if (!isChatRequest(body)) throw new GatewayError(400, 'invalid_request_error', 'model and messages are required.')
  if (body.model !== DEMO_MODEL)
    throw new GatewayError(
      404,
      'model_not_found',
      `There is no model "${body.model}" here, only "${DEMO_MODEL}": this is the built-in demo. Set LITELLM_API_BASE and LITELLM_API_KEY for real models.`,
    )
  return body
}

type Completion = { id: string; created: number; reply: DemoReply; usage: Record<string, number> }

const complete = (request: ChatRequest): Completion => {
  const reply = demoReply(request)
  const prompt_tokens = tokensIn(JSON.stringify(request.messages))
  const completion_tokens = tokensIn(reply.type === 'text' ? reply.text : reply.arguments)
  return {
    id: `chatcmpl-demo-${randomUUID()}`,
    created: Math.floor(Date.now() / 1_000),
    reply,
    usage: { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens },
  }
}

const toolCall = (reply: DemoReply & { type: 'tool_call' }, id: string) => ({
  id: `call_${id.slice(-12)}`,
  type: 'function',
  function: { name: reply.name, arguments: reply.arguments },
})

const finishReason = (reply: DemoReply): string => (reply.type === 'text' ? 'stop' : 'tool_calls')

const sendWhole = (response: ServerResponse, { id, created, reply, usage }: Completion): void => {
  const message =
    reply.type === 'text'
      ? { role: 'assistant', content: reply.text }
      : { role: 'assistant', content: null, tool_calls: [toolCall(reply, id)] }
  sendJson(response, 200, {
    id,
    object: 'chat.completion',
    created,
    model: DEMO_MODEL,
    choices: [{ index: 0, message, logprobs: null, finish_reason: finishReason(reply) }],
    usage,
  })
}

/** Words with the space behind them, joined so that there are at most `piecesMax`. */
const piecesOf = (text: string): string[] => {
  const words = text.match(/\s*\S+\s*/g) ?? [text]
  const size = Math.ceil(words.length / piecesMax)
  return Array.from({ length: Math.ceil(words.length / size) }, (_, n) =>
    words.slice(n * size, (n + 1) * size).join(''),
  )
}

const sendStream = async (
  response: ServerResponse,
  { id, created, reply, usage }: Completion,
  withUsage: boolean,
): Promise<void> => {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' })
  const send = (fields: Record<string, unknown>): void => {
    const chunk = { id, object: 'chat.completion.chunk', created, model: DEMO_MODEL, ...fields }
    response.write(`data: ${JSON.stringify(chunk)}\n\n`)
  }
  const choice = (delta: Record<string, unknown>, finish_reason: string | null = null): void =>
    send({ choices: [{ index: 0, delta, logprobs: null, finish_reason }] })
  choice({ role: 'assistant', content: reply.type === 'text' ? '' : null })
  if (reply.type === 'tool_call') choice({ tool_calls: [{ index: 0, ...toolCall(reply, id) }] })
  else
    for (const piece of piecesOf(reply.text)) {
      if (response.destroyed) return
      choice({ content: piece })
      await sleep(pieceDelayMs)
    }
  choice({}, finishReason(reply))
  if (withUsage) send({ choices: [], usage })
  response.end('data: [DONE]\n\n')
}

const models = {
  object: 'list',
  data: [{ id: DEMO_MODEL, object: 'model', created: 0, owned_by: 'lap-built-in-demo' }],
}

const handle = async (request: IncomingMessage, response: ServerResponse, key: string): Promise<void> => {
  const { pathname } = new URL(request.url ?? '/', 'http://localhost')
  const route = `${request.method} ${pathname.replace(/^\/v1(?=\/)/, '')}`
  if (route === 'GET /models') {
    requireKey(request, key)
    sendJson(response, 200, models)
  } else if (route === 'POST /chat/completions') {
    requireKey(request, key)
    const chat = parseRequest(await readBody(request))
    const completion = complete(chat)
    if (chat.stream === true) await sendStream(response, completion, chat.stream_options?.include_usage === true)
    else sendWhole(response, completion)
  } else throw new GatewayError(404, 'not_found', 'The demo gateway has GET /v1/models and POST /v1/chat/completions.')
}

const answerError = (response: ServerResponse, error: unknown): void => {
  if (response.headersSent) {
    response.destroy()
    return
  }
  const known = error instanceof GatewayError ? error : new GatewayError(500, 'internal', 'The demo model failed.')
  sendJson(response, known.status, {
    error: { message: `[demo model] ${known.message}`, type: known.code, param: null, code: known.code },
  })
}

/**
 * The built-in demo model: an OpenAI chat-completions server (with and without streaming, tool calls, usage, `GET /v1/models`; the `/v1` may be left
 * out) with one model, `demo`, that repeats what the user said and runs a line that starts with `$ ` through the harness's shell tool.
 * @param options.port 0: any free port
 * @param options.key bearer key that callers must send
 */
export const createDemoGateway = async (options: { port: number; host: string; key: string }): Promise<DemoGateway> => {
  const server = createServer((request, response) => {
    handle(request, response, options.key).catch((error: unknown) => answerError(response, error))
  })
  server.listen(options.port, options.host)
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the demo gateway has no port')
  const close = async (): Promise<void> => {
    if (!server.listening) return
    const closed = once(server, 'close')
    server.close()
    server.closeAllConnections()
    await closed
  }
  return { url: `http://${options.host}:${address.port}`, close, [Symbol.asyncDispose]: close }
}
