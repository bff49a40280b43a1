import { spawn } from 'node:child_process'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { isRunning, type ProcessRecord } from '../../tools/dev/process.ts'
import { MODELS, PRICE } from './config.ts'
import { type LiteLlm, startLiteLlm } from './litellm.ts'

let proxy: LiteLlm
beforeAll(async () => {
  proxy = await startLiteLlm()
}, 400_000)
afterAll(async () => proxy?.[Symbol.asyncDispose]())

const schema = { type: 'object', properties: { command: { type: 'string' } }, required: ['command'] }

/** How each dialect writes a request, its tools, and its answer. */
const DIALECTS = {
  chat: {
    path: '/v1/chat/completions',
    body: (text: string) => ({
      messages: [{ role: 'user', content: text }],
      tools: [{ type: 'function', function: { name: 'bash', parameters: schema } }],
      stream_options: { include_usage: true },
    }),
    call: '"name":"bash"',
    error: { error: { message: expect.stringContaining('as told'), code: '400' } },
  },
  messages: {
    path: '/v1/messages?beta=true',
    body: (text: string) => ({
      max_tokens: 100,
      messages: [{ role: 'user', content: text }],
      tools: [{ name: 'Bash', input_schema: schema }],
    }),
    call: /"name": ?"Bash"/,
    error: { type: 'error', error: { type: 'invalid_request_error', message: expect.stringContaining('as told') } },
  },
  responses: {
    path: '/v1/responses',
    body: (text: string) => ({ input: text, tools: [{ type: 'function', name: 'exec_command', parameters: schema }] }),
    call: '"name":"exec_command"',
    error: { error: { message: expect.stringContaining('as told'), code: '400' } },
  },
}

const post = (to: LiteLlm, path: string, body: object, more: RequestInit = {}): Promise<Response> =>
  fetch(`${to.url}${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${to.key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: MODELS.priced, ...body }),
    ...more,
  })

test('begins with no request of its own in the list', () => {
  expect(proxy.upstream.requests).toEqual([])
})

describe.each(Object.entries(DIALECTS))('%s', (_name, { path, body, call, error }) => {
  test.each([true, false])('text, tokens and cost pass (stream: %s)', async (stream) => {
    const response = await post(proxy, path, { ...body('usage 1000 50 400\nsay hello there'), stream })
    const said = await response.text()
    expect(response.status).toBe(200)
    expect(said).toContain('hello there')
    const cost = 600 * PRICE.input + 400 * PRICE.cached + 50 * PRICE.output
    const told = stream ? /"cost": ?([\d.e-]+)/.exec(said)?.[1] : response.headers.get('x-litellm-response-cost')
    expect(Number(told)).toBeCloseTo(cost, 9)
    expect(proxy.upstream.requests.at(-1)).toMatchObject({ authorization: `Bearer ${proxy.upstream.key}` })
  })

  test.each([true, false])('a call of the tool that is offered passes (stream: %s)', async (stream) => {
    const said = await (await post(proxy, path, { ...body('run true'), stream })).text()
    expect(said).toMatch(call)
  })

  test('an error has the form of the dialect', async () => {
    const response = await post(proxy, path, { ...body('fail 400'), stream: true })
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject(error)
  })

  test('who hangs up ends the answer of the model', async () => {
    const hangUp = new AbortController()
    const response = await post(proxy, path, { ...body('stream 100000 20'), stream: true }, { signal: hangUp.signal })
    await response.body!.getReader().read()
    hangUp.abort()
    await proxy.upstream.requests.at(-1)!.closed
  })
})

test('a model without a price has no cost; one that nobody answers for is an error', async () => {
  const free = await post(proxy, '/v1/chat/completions', { ...DIALECTS.chat.body('say x'), model: MODELS.unpriced })
  expect([free.status, free.headers.get('x-litellm-response-cost')]).toEqual([200, null])
  const lost = await post(proxy, '/v1/chat/completions', { ...DIALECTS.chat.body('say x'), model: MODELS.unreachable })
  expect(lost.status).toBeGreaterThanOrEqual(500)
})

test('only its key opens it, and its keys are in no command line', async () => {
  const refused = await post(proxy, '/v1/chat/completions', DIALECTS.chat.body('say x'), { headers: {} })
  expect(refused.status).toBeGreaterThanOrEqual(400)
  const lines = readdirSync('/proc').flatMap((pid) => {
    const file = `/proc/${pid}/cmdline`
    return /^\d+$/.test(pid) && existsSync(file) ? [readFileSync(file, 'utf8')] : []
  })
  expect(lines.some((line) => line.includes('litellm'))).toBe(true)
  for (const secret of [proxy.key, proxy.upstream.key])
    expect(lines.filter((line) => line.includes(secret))).toEqual([])
})

test('the next to ask gets the same process, and one that is in use says so', async () => {
  await expect(startLiteLlm()).rejects.toThrow(/in use.*own: true/)
  await proxy[Symbol.asyncDispose]()
  const before = proxy.record
  proxy = await startLiteLlm()
  expect(proxy.record).toEqual(before)
  expect(await (await post(proxy, '/v1/chat/completions', DIALECTS.chat.body('say again'))).text()).toContain('again')
})

/** Starts one in a process of its own. @returns that process and the proxy's */
const startElsewhere = async () => {
  const file = fileURLToPath(new URL('litellm.ts', import.meta.url))
  const program = `const { startLiteLlm } = await import(${JSON.stringify(file)})
    console.log(JSON.stringify((await startLiteLlm()).record))`
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const record = await new Promise<ProcessRecord>((resolve, reject) => {
    child.stdout.once('data', (text: Buffer) => resolve(JSON.parse(text.toString()) as ProcessRecord))
    child.once('exit', (code) => reject(new Error(`ended with ${code}`)))
  })
  return { child, record }
}

test('it ends with the process that started it, also with one that is killed', async () => {
  const { child, record } = await startElsewhere()
  const dir = path.join(tmpdir(), `lap-litellm-${child.pid}`)
  expect(isRunning(record)).toBe(true)
  child.kill('SIGKILL')
  for (const end = Date.now() + 30_000; isRunning(record) && Date.now() < end;) await sleep(50)
  expect(isRunning(record)).toBe(false)
  for (const end = Date.now() + 10_000; existsSync(dir) && Date.now() < end;) await sleep(50)
  expect(existsSync(dir)).toBe(false)
}, 400_000)

test('one of its own ends when it is disposed of', async () => {
  const own = await startLiteLlm({ own: true })
  expect(own.record).not.toEqual(proxy.record)
  await own[Symbol.asyncDispose]()
  expect(isRunning(own.record)).toBe(false)
}, 400_000)
