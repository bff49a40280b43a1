import { once } from 'node:events'
import { type IncomingMessage, type ServerResponse, createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from '@jest/globals'
import { type Loopback, startLoopback } from './loopback.ts'

type Seen = { method: string; url: string; headers: IncomingMessage['headers']; body: string }

/** A gateway that notes what it is asked and answers as told. */
const startGateway = async (answer: (response: ServerResponse, seen: Seen) => void | Promise<void>, port = 0) => {
  const seen: Seen[] = []
  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    let body = ''
    for await (const part of request.setEncoding('utf8') as AsyncIterable<string>) body += part
    const one = { method: request.method ?? '', url: request.url ?? '', headers: request.headers, body }
    seen.push(one)
    await answer(response, one)
  }
  const server = createServer((request, response) => void handle(request, response).catch(() => response.destroy()))
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  const { port: own } = server.address() as AddressInfo
  const close = async (): Promise<void> => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  }
  return { url: `http://127.0.0.1:${own}`, port: own, seen, close, [Symbol.asyncDispose]: close }
}

const loopback = async (): Promise<Loopback & AsyncDisposable> => {
  const started = await startLoopback(() => undefined)
  return { ...started, [Symbol.asyncDispose]: () => started.close() }
}

const post = (to: Loopback, path: string, body: object, more: RequestInit = {}): Promise<Response> =>
  fetch(`${to.url}${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${to.key}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
    ...more,
  })

const chat = (to: Loopback, body: object = {}, more?: RequestInit): Promise<Response> =>
  post(to, '/chat/completions', { model: 'lap', messages: [{ role: 'user', content: 'hi' }], ...body }, more)

test('only the stub key opens it, and only calls of a model pass', async () => {
  await using gateway = await startGateway((response) => void response.end('{}'))
  await using own = await loopback()
  own.connect({ base_url: gateway.url, api_key: 'real' }, 'm')
  for (const authorization of ['', 'Bearer real', 'Bearer x', own.key])
    expect((await chat(own, {}, { headers: { authorization } })).status).toBe(401)
  for (const path of ['/key/generate', '/embeddings', '/chat/completions/../../key/info', '/files'])
    expect((await post(own, path, {})).status).toBe(404)
  expect((await fetch(`${own.url}/chat/completions`, { headers: { authorization: `Bearer ${own.key}` } })).status).toBe(
    404,
  )
  expect(gateway.seen).toEqual([])
  const models = await fetch(`${own.url}/models`, { headers: { authorization: `Bearer ${own.key}` } })
  expect(await models.json()).toMatchObject({ data: [{ id: 'lap' }] })
})

test('the gateway gets the real key and the real model, whether its base ends in /v1 or not', async () => {
  await using gateway = await startGateway((response) => void response.end('{}'))
  for (const end of ['', '/', '/v1', '/v1/']) {
    await using own = await loopback()
    own.connect({ base_url: `${gateway.url}${end}`, api_key: 'real' }, 'first')
    await chat(own)
    own.beginTurn('second')
    await chat(own, { stream: true })
    await post(own, '/messages', { model: 'lap', stream: true })
    const [one, two, three] = gateway.seen.splice(0)
    expect(one).toMatchObject({ url: '/v1/chat/completions', headers: { authorization: 'Bearer real' } })
    expect(JSON.parse(one!.body)).toEqual({ model: 'first', messages: [{ role: 'user', content: 'hi' }] })
    expect(JSON.parse(two!.body)).toMatchObject({ model: 'second', stream_options: { include_usage: true } })
    expect(three).toMatchObject({ url: '/v1/messages' })
    expect(JSON.parse(three!.body)).toEqual({ model: 'second', stream: true })
    expect(JSON.stringify([one, two, three])).not.toContain(own.key)
  }
})

test('a request goes to the gateway and nowhere else, however its target is written', async () => {
  await using gateway = await startGateway((response) => void response.end('{}'))
  await using own = await loopback()
  own.connect({ base_url: gateway.url, api_key: 'real' }, 'm')
  const { port } = new URL(own.url)
  const headers = { authorization: `Bearer ${own.key}` }
  for (const target of [
    'pany://x/v1/chat/completions',
    '/v1/x/../chat/completions',
    '/v1/%2e%2e/v1/messages?beta=true',
  ]) {
    const asked = request({ port, host: '127.0.0.1', method: 'POST', path: target, headers }).end('{}')
    const [reply] = (await once(asked, 'response')) as [IncomingMessage]
    reply.resume()
    expect(reply.statusCode).toBe(200)
  }
  expect(gateway.seen.map(({ url }) => url)).toEqual([
    '/v1/chat/completions',
    '/v1/chat/completions',
    '/v1/messages?beta=true',
  ])
})

test('a stream passes piece by piece, not when it is complete', async () => {
  const goOn = Promise.withResolvers<void>()
  await using gateway = await startGateway(async (response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write('data: {"n":1}\n\n')
    await goOn.promise
    response.end('data: {"n":2}\n\n')
  })
  await using own = await loopback()
  own.connect({ base_url: gateway.url, api_key: 'real' }, 'm')
  const reader = (await chat(own, { stream: true })).body!.getReader()
  const read = async (): Promise<string> => Buffer.from((await reader.read()).value ?? []).toString()
  expect(await read()).toBe('data: {"n":1}\n\n')
  goOn.resolve()
  expect(await read()).toBe('data: {"n":2}\n\n')
  expect(await read()).toBe('')
})

test('a harness that hangs up ends its request at the gateway, also one that is not answered yet', async () => {
  const ended: string[] = []
  await using gateway = await startGateway((response, { body }) => {
    response.once('close', () => void ended.push((JSON.parse(body) as { id: string }).id))
    if (body.includes('answered'))
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: {}\n\n')
  })
  await using own = await loopback()
  own.connect({ base_url: gateway.url, api_key: 'real' }, 'm')
  const abort = new AbortController()
  const answered = await chat(own, { id: 'answered', stream: true }, { signal: abort.signal })
  const silent = chat(own, { id: 'silent', stream: true }, { signal: abort.signal })
  silent.catch(() => undefined)
  while (gateway.seen.length < 2) await sleep(5)
  abort.abort()
  await expect(answered.text()).rejects.toThrow()
  for (const end = Date.now() + 5_000; ended.length < 2 && Date.now() < end;) await sleep(5)
  expect(ended.toSorted()).toEqual(['answered', 'silent'])
})

test('it knows for how long no model was asked: not since it was bound, not at all while one answers, then longer and longer', async () => {
  const held: ServerResponse[] = []
  await using gateway = await startGateway((response) => {
    held.push(response.writeHead(200, { 'content-type': 'text/event-stream' }))
    response.write('data: {}\n\n')
  })
  await using own = await loopback()
  await chat(own)
  own.connect({ base_url: gateway.url, api_key: 'real' }, 'm')
  expect(own.health().model_idle_ms).toBeNull()
  const answer = await chat(own, { stream: true })
  await sleep(20)
  expect(own.health().model_idle_ms).toBe(0)
  held[0]?.end()
  await answer.text()
  while (own.health().model_idle_ms === 0) await sleep(5)
  const first = own.health().model_idle_ms
  while (own.health().model_idle_ms === first) await sleep(5)
  expect(own.health().model_idle_ms).toBeGreaterThan(first ?? Infinity)
})

test('a gateway that restarts is waited for; one that stays away is told as unreachable, in a way that is not repeated', async () => {
  const gateway = await startGateway((response) => void response.end('{}'))
  await using own = await loopback()
  own.connect({ base_url: gateway.url, api_key: 'real' }, 'm')
  await gateway.close()
  const waiting = chat(own)
  await sleep(100)
  {
    await using _again = await startGateway((response) => void response.end('{"back":true}'), gateway.port)
    expect(await (await waiting).json()).toEqual({ back: true })
  }
  const traffic = own.beginTurn('m')
  const reply = await chat(own)
  expect(reply.status).toBe(400)
  expect(await reply.json()).toMatchObject({ error: { type: 'gateway_unreachable' } })
  expect(traffic.unreachable).toContain('ECONNREFUSED')
  await using _back = await startGateway((response) => void response.end('{}'), gateway.port)
  await chat(own)
  expect(traffic.unreachable).toBeNull()
})

test('what the dialect says beside its request passes on, and when to come again passes back; no key of the harness does', async () => {
  await using gateway = await startGateway((response) => {
    response.writeHead(429, { 'content-type': 'application/json', 'retry-after': '7', 'x-internal': 'no' })
    response.end('{"type":"error","error":{"type":"rate_limit_error","message":"slowly"}}')
  })
  await using own = await loopback()
  own.connect({ base_url: gateway.url, api_key: 'real' }, 'm')
  const reply = await post(
    own,
    '/messages?beta=true',
    { model: 'lap' },
    {
      headers: { 'x-api-key': own.key, 'anthropic-version': '2023-06-01', 'anthropic-beta': 'a,b', 'x-app': 'cli' },
    },
  )
  expect([reply.status, reply.headers.get('retry-after'), reply.headers.get('x-internal')]).toEqual([429, '7', null])
  const { url, headers } = gateway.seen[0]!
  expect({ url, ...headers }).toMatchObject({
    url: '/v1/messages?beta=true',
    authorization: 'Bearer real',
    'anthropic-version': '2023-06-01',
    'anthropic-beta': 'a,b',
  })
  expect(headers).not.toHaveProperty('x-app')
  expect(JSON.stringify(headers)).not.toContain(own.key)
})

const openaiError = (message: string, type: string) => ({ error: { message, type } })
const anthropicError = (message: string, type: string) => ({ type: 'error', error: { type, message } })

test.each([
  ['/chat/completions', '{"error":{"message":"own words","type":"x"}}', 400, openaiError('own words', 'x')],
  ['/responses', '{"detail":"own words"}', 404, openaiError('own words', 'not_found_error')],
  ['/chat/completions', '<html>Bad gateway</html>', 502, openaiError('<html>Bad gateway</html>', 'api_error')],
  ['/chat/completions', '', 503, openaiError('the gateway answered 503', 'api_error')],
  ['/messages', '{"type":"error","error":{"type":"x","message":"own words"}}', 400, anthropicError('own words', 'x')],
  [
    '/messages',
    '{"error":{"message":"own words","type":"x"}}',
    401,
    anthropicError('own words', 'authentication_error'),
  ],
  ['/messages', '{"error":"own words"}', 529, anthropicError('own words', 'overloaded_error')],
  ['/messages', 'upstream timed out', 504, anthropicError('upstream timed out', 'api_error')],
])('an error comes in the form of the dialect: %s %s', async (path, body, status, expected) => {
  await using gateway = await startGateway((response) => void response.writeHead(status).end(body))
  await using own = await loopback()
  own.connect({ base_url: gateway.url, api_key: 'real' }, 'm')
  const reply = await post(own, path, { model: 'lap', stream: true })
  expect(reply.status).toBe(status)
  expect(await reply.json()).toMatchObject(expected)
})

test('what the loopback itself refuses has the form of the dialect, too', async () => {
  await using gateway = await startGateway((response) => void response.end('{}'))
  await using own = await loopback()
  const unknown = await post(own, '/messages', {}, { headers: { 'x-api-key': 'wrong' } })
  expect(unknown.status).toBe(401)
  expect(await unknown.json()).toEqual(anthropicError('unknown key', 'authentication_error'))
  own.connect({ base_url: gateway.url, api_key: 'real' }, 'm')
  await gateway.close()
  const lost = await post(own, '/messages', { model: 'lap' })
  expect(lost.status).toBe(400)
  expect(await lost.json()).toMatchObject({ type: 'error', error: { type: 'gateway_unreachable' } })
})

test('the model is listed in the form of who asks, tokens are counted roughly, and who only looks is answered', async () => {
  await using gateway = await startGateway((response) => void response.end('{}'))
  await using own = await loopback()
  const get = async (path: string, headers: Record<string, string>): Promise<unknown> =>
    (await fetch(`${own.url}${path}`, { headers })).json()
  const anthropic = { 'x-api-key': own.key, 'anthropic-version': '2023-06-01' }
  const openai = { authorization: `Bearer ${own.key}` }
  expect(await get('/models', anthropic)).toMatchObject({ data: [{ type: 'model', id: 'lap' }], has_more: false })
  expect(await get('/models/lap', anthropic)).toMatchObject({ type: 'model', id: 'lap' })
  expect(await get('/models/lap', openai)).toMatchObject({ object: 'model', id: 'lap' })
  for (const bound of [false, true]) {
    if (bound) own.connect({ base_url: gateway.url, api_key: 'real' }, 'm')
    const traffic = own.beginTurn('m')
    const counted = await post(own, '/messages/count_tokens?beta=true', { messages: 'x'.repeat(400) })
    expect(((await counted.json()) as { input_tokens: number }).input_tokens).toBeGreaterThan(100)
    expect(traffic.usage.requests).toBe(0)
  }
  expect((await fetch(new URL('/', own.url), { method: 'HEAD' })).status).toBe(200)
  expect(gateway.seen).toEqual([])
})

const sse = (...events: string[]): string => events.map((data) => `data: ${data}\n\n`).join('')

/** Answers as LiteLLM gives them: the cost of a stream is in its usage, that of other answers in a header. */
const ANSWERS = {
  '/v1/chat/completions': {
    whole: '{"usage":{"prompt_tokens":1000,"completion_tokens":20,"prompt_tokens_details":{"cached_tokens":400}}}',
    stream: sse(
      '{"choices":[]}',
      '{"usage":{"prompt_tokens":1000,"completion_tokens":20,"prompt_tokens_details":{"cached_tokens":400},"cost":0.25}}',
      '[DONE]',
    ),
  },
  '/v1/messages': {
    whole:
      '{"usage":{"input_tokens":500,"output_tokens":20,"cache_read_input_tokens":400,"cache_creation_input_tokens":100}}',
    stream: sse(
      '{"type":"message_start","message":{"usage":{"input_tokens":500,"output_tokens":1,"cache_read_input_tokens":400,"cache_creation_input_tokens":100}}}',
      '{"type":"message_delta","usage":{"output_tokens":9}}',
      '{"type":"message_delta","usage":{"output_tokens":20,"cost":0.25}}',
    ),
  },
  '/v1/responses': {
    whole: '{"usage":{"input_tokens":1000,"output_tokens":20,"input_tokens_details":{"cached_tokens":400}}}',
    // The last event repeats all that was said and given.
    stream: sse(
      `{"type":"response.completed","response":{"output":"${'x'.repeat(300_000)}","usage":{"input_tokens":1000,"output_tokens":20,"input_tokens_details":{"cached_tokens":400},"cost":0.25}}}`,
    ),
  },
}

const one = { input_tokens: 1_000, output_tokens: 20, cached_tokens: 400, cost_usd: 0.25, requests: 1 }

test.each(Object.entries(ANSWERS))('tokens and cost are counted: %s', async (path, { whole, stream }) => {
  await using gateway = await startGateway((response, { body }) => {
    const isStream = body.includes('"stream":true')
    const type = { 'content-type': isStream ? 'text/event-stream' : 'application/json' }
    response.writeHead(200, isStream ? type : { ...type, 'x-litellm-response-cost': '0.25' })
    response.end(isStream ? stream : whole)
  })
  await using own = await loopback()
  own.connect({ base_url: gateway.url, api_key: 'real' }, 'm')
  for (const streaming of [false, true]) {
    const { usage } = own.beginTurn('m')
    await (await post(own, path.slice(3), { model: 'lap', stream: streaming })).text()
    expect(usage).toEqual(one)
  }
})

test('a turn has what all its requests have used; without a price there is no cost', async () => {
  const costs = ['0.5', undefined, '0.25']
  await using gateway = await startGateway((response) => {
    const cost = costs.shift()
    response.writeHead(200, cost === undefined ? {} : { 'x-litellm-response-cost': cost })
    response.end('{"usage":{"prompt_tokens":5,"completion_tokens":6}}')
  })
  await using own = await loopback()
  own.connect({ base_url: gateway.url, api_key: 'real' }, 'm')
  const first = own.beginTurn('m')
  for (let i = 0; i < 3; i++) await (await chat(own)).text()
  expect(first.usage).toEqual({ input_tokens: 15, output_tokens: 18, cached_tokens: 0, cost_usd: 0.75, requests: 3 })
  const second = own.beginTurn('m')
  await (await chat(own)).text()
  expect(second.usage).toEqual({ input_tokens: 5, output_tokens: 6, cached_tokens: 0, cost_usd: null, requests: 1 })
})

test('a turn has its usage before the harness has read the end, and what was told so far when it hangs up', async () => {
  await using gateway = await startGateway((response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write(sse('{"type":"message_start","message":{"usage":{"input_tokens":7,"output_tokens":1}}}'))
  })
  await using own = await loopback()
  own.connect({ base_url: gateway.url, api_key: 'real' }, 'm')
  const hangUp = new AbortController()
  const { usage } = own.beginTurn('m')
  const reply = await post(own, '/messages', { stream: true }, { signal: hangUp.signal })
  await reply.body!.getReader().read()
  expect(usage).toMatchObject({ input_tokens: 7, output_tokens: 1 })
  hangUp.abort()
})

test('what is used before the first turn is counted by itself, and never becomes less', async () => {
  await using gateway = await startGateway((response) => {
    response.writeHead(200, { 'x-litellm-response-cost': '0.5' })
    response.end('{"usage":{"prompt_tokens":5,"completion_tokens":6}}')
  })
  await using own = await loopback()
  await (await chat(own)).text()
  expect(own.health().usage_outside_turns).toMatchObject({ requests: 0, input_tokens: 0 })
  own.connect({ base_url: gateway.url, api_key: 'real' }, 'm')
  for (let i = 0; i < 2; i++) await (await chat(own)).text()
  const used = { input_tokens: 10, output_tokens: 12, cached_tokens: 0, cost_usd: 1, requests: 2 }
  expect(own.health().usage_outside_turns).toEqual(used)
  own.beginTurn('m')
  await (await chat(own)).text()
  expect(own.health().usage_outside_turns).toEqual(used)
})

test('once it is told to, it forwards nothing and says why in the form of the dialect, until it is told otherwise', async () => {
  await using gateway = await startGateway((response) => void response.end('{}'))
  await using own = await loopback()
  own.connect({ base_url: gateway.url, api_key: 'real' }, 'm')
  own.refuse('Enough.')
  expect(own.health().model_refusal).toBe('Enough.')
  const [openai, anthropic] = [await chat(own), await post(own, '/messages', { model: 'lap' })]
  expect([openai.status, anthropic.status]).toEqual([400, 400])
  expect(await openai.json()).toMatchObject(openaiError('Enough.', 'limit_reached'))
  expect(await anthropic.json()).toEqual(anthropicError('Enough.', 'limit_reached'))
  expect(gateway.seen).toEqual([])
  expect(own.health().usage_outside_turns).toMatchObject({ requests: 0 })
  own.refuse(null)
  expect((await chat(own)).status).toBe(200)
})
