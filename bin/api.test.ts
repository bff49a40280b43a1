import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createConnection } from 'node:net'
import { fileURLToPath } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals'
import { TEST_MASTER_KEY } from '../test/api.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { buildWrittenSession } from '../test/event-log.ts'
import { openStream } from '../test/event-stream.ts'
import { freePort } from '../tools/dev/ports.ts'

const script = fileURLToPath(new URL('api.ts', import.meta.url))

type ApiProcess = {
  url: string
  metricsUrl: string
  child: ChildProcess
  output(): string
  exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
}

let database: TestDatabase
const running = new Set<ChildProcess>()
beforeAll(async () => {
  database = await createTestDatabase()
})
afterAll(async () => {
  await database[Symbol.asyncDispose]()
})
afterEach(() => {
  for (const child of running) child.kill('SIGKILL')
})

const settings = (): Record<string, string> => ({
  DATABASE_URL: database.url,
  MASTER_KEY: TEST_MASTER_KEY,
  LITELLM_API_BASE: 'http://127.0.0.1:9',
  LITELLM_API_KEY: 'sk-the-gateway-key',
  PREINSTALLED_GITHUB_REPO: 'https://example.com/repo.git',
  ENCRYPTION_KEY: Buffer.alloc(32, 7).toString('base64'),
  SANDBOX_DRIVER: 'local',
  TEMPORAL_ADDRESS: '127.0.0.1:9',
  HOST: '127.0.0.1',
})

const start = async (env: Record<string, string> = {}): Promise<ApiProcess> => {
  const [port, metricsPort] = [await freePort(), await freePort()]
  const child = spawn(process.execPath, [script], {
    env: {
      PATH: process.env['PATH'] ?? '',
      ...settings(),
      PORT: String(port),
      METRICS_PORT: String(metricsPort),
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running.add(child)
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (text: Buffer) => {
      output += text.toString()
    })
  const exited = once(child, 'exit').then(([code, signal]) => {
    running.delete(child)
    return { code: code as number | null, signal: signal as NodeJS.Signals | null }
  })
  const url = `http://127.0.0.1:${port}`
  return { url, metricsUrl: `http://127.0.0.1:${metricsPort}/metrics`, child, output: () => output, exited }
}

const started = async (env: Record<string, string> = {}): Promise<ApiProcess> => {
  const api = await start(env)
  for (const end = Date.now() + 60_000; !api.output().includes('api ready'); await sleep(20)) {
    if (api.child.exitCode !== null || Date.now() > end) throw new Error(`the API did not start:\n${api.output()}`)
  }
  return api
}

test('every wrong setting is listed with its reason, no value is shown, and the status is 1', async () => {
  const api = await start({
    DATABASE_URL: 'mysql://root:the-password@localhost/x',
    MASTER_KEY: 'short',
    LITELLM_API_BASE: '',
    WARM_POOL_SIZE: 'many',
  })
  expect(await api.exited).toEqual({ code: 1, signal: null })
  for (const key of ['DATABASE_URL', 'MASTER_KEY', 'LITELLM_API_BASE', 'WARM_POOL_SIZE'])
    expect(api.output()).toContain(key)
  expect(api.output()).not.toContain('PREINSTALLED_GITHUB_REPO')
  expect(api.output()).not.toMatch(/the-password|short\b.*\n.*short\b/)
  expect(api.output()).not.toContain('    at ')
})

test('a port that is taken is said in a sentence, with status 1', async () => {
  const first = await started()
  const second = await start({ PORT: new URL(first.url).port })
  expect(await second.exited).toEqual({ code: 1, signal: null })
  expect(second.output()).toContain('The API could not start: listen EADDRINUSE')
  first.child.kill('SIGTERM')
  expect(await first.exited).toEqual({ code: 0, signal: null })
})

test('without database and Temporal it lives, says that it is not ready, and ends with 0', async () => {
  const api = await started({ DATABASE_URL: 'postgresql://nobody@127.0.0.1:9/nothing' })
  expect((await fetch(`${api.url}/healthz`)).status).toBe(200)
  expect((await fetch(`${api.url}/readyz`)).status).toBe(503)
  api.child.kill('SIGINT')
  expect(await api.exited).toEqual({ code: 0, signal: null })
})

test('metrics have a port of their own, with the depth of the pool and live sessions, and no ids', async () => {
  const api = await started()
  const session = await buildWrittenSession(database.db)
  const text = await (await fetch(api.metricsUrl)).text()
  expect(text).toMatch(/^sessions_live\{status="ready"\} \d+$/m)
  expect(text).toMatch(/^warm_pool_depth\{state="warm"\} \d+$/m)
  expect(text).toMatch(/^outbox_depth \d+$/m)
  expect(text).not.toContain(session.id)
  expect((await fetch(`${api.url}/metrics`)).status).toBe(404)
  api.child.kill('SIGTERM')
  expect(await api.exited).toEqual({ code: 0, signal: null })
})

test('SIGTERM sends streams and waiting messages away with a hint, and the process ends with 0 in time', async () => {
  const api = await started()
  const session = await buildWrittenSession(database.db)
  const base = `${api.url}/api/v1/managed_agents/sessions/${session.id}`
  const stream = await openStream(`${base}/events?follow=1`)
  await stream.until(({ id }) => id === 2)
  const message = fetch(`${base}/message`, {
    method: 'POST',
    headers: { authorization: `Bearer ${TEST_MASTER_KEY}` },
    body: JSON.stringify({ text: 'Think long' }),
  })
  while ((await session.lastSeq()) < 4) await sleep(10)
  const since = performance.now()
  api.child.kill('SIGTERM')
  await stream.rest()
  expect(stream.asides).toContain('retry: 1000')
  const { status, headers } = await message
  expect({ status, retry: headers.get('retry-after') }).toEqual({ status: 503, retry: '1' })
  expect(await api.exited).toEqual({ code: 0, signal: null })
  expect(performance.now() - since).toBeLessThan(8_000)
  expect(api.output()).toContain('api ended')
})

test('a second signal ends it at once', async () => {
  const api = await started()
  const { port } = new URL(api.url)
  const unfinished = createConnection({ port: Number(port), host: '127.0.0.1' })
  unfinished.on('error', () => undefined)
  unfinished.write(
    `POST /api/v1/managed_agents/agents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${TEST_MASTER_KEY}\r\nContent-Length: 1000\r\n\r\n{`,
  )
  await sleep(200)
  api.child.kill('SIGTERM')
  while (!api.output().includes('draining')) await sleep(10)
  await sleep(300)
  expect(api.child.exitCode).toBeNull()
  const since = performance.now()
  api.child.kill('SIGTERM')
  expect(await api.exited).toEqual({ code: 1, signal: null })
  expect(performance.now() - since).toBeLessThan(2_000)
  unfinished.destroy()
})
