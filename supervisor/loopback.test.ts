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

const shell = { type: 'function', function: { name: 'bash', parameters: { properties: { command: {} } } } }

test('before bind it answers by itself: first a call of the shell tool, after its result a text, streamed or whole', async () => {
  await using own = await loopback()
  const first = await (await chat(own, { stream: true, tools: [shell] })).text()
  expect(first).toContain('"name":"bash"')
  expect(first).toContain('"finish_reason":"tool_calls"')
  expect(first).toMatch(/data: \[DONE\]\n\n$/)
  expect(own.warmedUp()).toBe(false)
  const messages = [{ role: 'user' }, { role: 'assistant' }, { role: 'tool', content: '' }]
  expect(await (await chat(own, { stream: true, tools: [shell], messages })).text()).toContain('"content":"Ready."')
  expect(own.warmedUp()).toBe(true)
  const whole = (await (await chat(own)).json()) as { choices: { message: { content: string } }[] }
  expect(whole.choices[0]?.message.content).toBe('Ready.')
})

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
})

test('the usage of a turn is that of all its requests, in the dialect of each', async () => {
  const streams: Record<string, string[]> = {
    '/v1/chat/completions': [
      '{"choices":[]}',
      '{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":1}}',
      '[DONE]',
    ],
    '/v1/messages': [
      '{"type":"message_start","message":{"usage":{"input_tokens":100,"output_tokens":1}}}',
      '{"type":"message_delta","usage":{"output_tokens":20}}',
    ],
    '/v1/responses': ['{"type":"response.completed","response":{"usage":{"input_tokens":1000,"output_tokens":300}}}'],
  }
  await using gateway = await startGateway((response, { url, body }) => {
    if (!body.includes('stream')) {
      response.end('{"usage":{"prompt_tokens":5,"completion_tokens":6}}')
      return
    }
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.end(streams[url]!.map((data) => `data: ${data}\n\n`).join(''))
  })
  await using own = await loopback()
  own.connect({ base_url: gateway.url, api_key: 'real' }, 'm')
  const first = own.beginTurn('m')
  for (const path of ['/chat/completions', '/messages', '/responses'])
    await (await post(own, path, { model: 'lap', stream: true })).text()
  expect(first.usage).toEqual({ input_tokens: 1_110, output_tokens: 321, requests: 3 })
  const second = own.beginTurn('m')
  await (await chat(own)).text()
  expect(second.usage).toEqual({ input_tokens: 5, output_tokens: 6, requests: 1 })
})
