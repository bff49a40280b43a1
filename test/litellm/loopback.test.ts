import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { type Loopback, startLoopback } from '../../supervisor/loopback.ts'
import { endProcess } from '../../tools/dev/process.ts'
import { MODELS, PRICE } from './config.ts'
import { type LiteLlm, startLiteLlm } from './litellm.ts'

/** The loopback gateway of a sandbox in front of the real LiteLLM: what the dialects of both make of each other. */
let litellm: LiteLlm
let loopback: Loopback
beforeAll(async () => {
  litellm = await startLiteLlm()
  loopback = await startLoopback(() => undefined)
  loopback.connect({ base_url: litellm.url, api_key: litellm.key }, MODELS.priced)
}, 400_000)
afterAll(async () => {
  await loopback?.close()
  await litellm?.[Symbol.asyncDispose]()
})

const schema = { type: 'object', properties: { command: { type: 'string' } }, required: ['command'] }

const DIALECTS = {
  '/chat/completions': {
    ask: (text: string) => ({
      messages: [{ role: 'user', content: text }],
      tools: [{ type: 'function', function: { name: 'bash', parameters: schema } }],
    }),
    refusal: (message: unknown) => ({ error: { message } }),
  },
  '/messages': {
    ask: (text: string) => ({
      max_tokens: 100,
      messages: [{ role: 'user', content: text }],
      tools: [{ name: 'Bash', input_schema: schema }],
    }),
    refusal: (message: unknown) => ({ type: 'error', error: { message } }),
  },
  '/responses': {
    ask: (text: string) => ({ input: text, tools: [{ type: 'function', name: 'exec_command', parameters: schema }] }),
    refusal: (message: unknown) => ({ error: { message } }),
  },
}

const post = (path: string, body: object, { to = loopback, signal }: { to?: Loopback; signal?: AbortSignal } = {}) =>
  fetch(`${to.url}${path}`, {
    method: 'POST',
    headers: { 'x-api-key': to.key, 'content-type': 'application/json', 'anthropic-version': '2023-06-01' },
    body: JSON.stringify({ model: 'lap', ...body }),
    ...(signal === undefined ? {} : { signal }),
  })

describe.each(Object.entries(DIALECTS))('%s', (path, { ask, refusal }) => {
  test.each([true, false])(
    'tokens, those of the cache, and the cost of a turn are counted (stream: %s)',
    async (stream) => {
      const { usage } = loopback.beginTurn(MODELS.priced)
      const said: string[] = []
      for (const text of ['usage 1000 50 400\nsay one', 'usage 10 5\nsay two'])
        said.push(await (await post(path, { ...ask(text), stream })).text())
      expect(said[0]).toContain('one')
      expect(usage).toMatchObject({ input_tokens: 1_010, output_tokens: 55, cached_tokens: 400, requests: 2 })
      expect(usage.cost_usd).toBeCloseTo(610 * PRICE.input + 400 * PRICE.cached + 55 * PRICE.output, 9)
      expect(litellm.upstream.requests.at(-1)).toMatchObject({ model: MODELS.priced })
    },
  )

  test('a model without a price has no cost', async () => {
    const { usage } = loopback.beginTurn(MODELS.unpriced)
    await (await post(path, { ...ask('say x'), stream: true })).text()
    expect(usage).toMatchObject({ output_tokens: 5 })
    // LiteLLM tells none, but 0 in a stream of Anthropic's messages.
    expect(usage.cost_usd ?? 0).toBe(0)
  })

  test('an error of the model, and one of the gateway, has the form of the dialect', async () => {
    loopback.beginTurn(MODELS.priced)
    const refused = await post(path, { ...ask('fail 400'), stream: true })
    expect(refused.status).toBe(400)
    expect(await refused.json()).toMatchObject(refusal(expect.stringContaining('as told')))
    loopback.beginTurn('no-such-model')
    const unknown = await post(path, { ...ask('say x'), stream: true })
    expect(unknown.status).toBe(400)
    expect(await unknown.json()).toMatchObject(refusal(expect.stringContaining('no-such-model')))
  })

  test('a key that the gateway does not know is an error in the form of the dialect', async () => {
    const own = await startLoopback(() => undefined)
    own.connect({ base_url: litellm.url, api_key: 'sk-wrong' }, MODELS.priced)
    const reply = await post(path, ask('say x'), { to: own })
    expect(reply.status).toBeGreaterThanOrEqual(400)
    expect(await reply.json()).toMatchObject(refusal(expect.any(String)))
    await own.close()
  })

  test('who hangs up ends the answer of the model', async () => {
    loopback.beginTurn(MODELS.priced)
    const hangUp = new AbortController()
    const reply = await post(path, { ...ask('stream 100000 20'), stream: true }, { signal: hangUp.signal })
    await reply.body!.getReader().read()
    hangUp.abort()
    await litellm.upstream.requests.at(-1)!.closed
  })
})

test('a gateway that dies amid an answer breaks it off, and the next request says that it cannot be reached', async () => {
  const own = await startLiteLlm({ own: true })
  const through = await startLoopback(() => undefined)
  through.connect({ base_url: own.url, api_key: own.key }, MODELS.priced)
  const traffic = through.beginTurn(MODELS.priced)
  const reply = await post(
    '/messages',
    { ...DIALECTS['/messages'].ask('stream 1000 50'), stream: true },
    { to: through },
  )
  const reader = reply.body!.getReader()
  await reader.read()
  await endProcess(own.record, 'SIGKILL', 0)
  const rest = async (): Promise<void> => {
    while (!(await reader.read()).done);
  }
  await expect(rest()).rejects.toThrow()
  const next = await post('/messages', DIALECTS['/messages'].ask('say x'), { to: through })
  expect(next.status).toBe(400)
  expect(await next.json()).toMatchObject({ type: 'error', error: { type: 'gateway_unreachable' } })
  expect(traffic.unreachable).not.toBeNull()
  await through.close()
  await own[Symbol.asyncDispose]()
}, 400_000)
