import { once } from 'node:events'
import { createServer, get, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from '@jest/globals'
import { writeSlowly } from './sse.ts'

/** More than the kernel holds for a connection, by far. Characters of three bytes, so that pieces end amid one. */
const TEXT = '€'.repeat(12 * 1_024 * 1_024)
const drainTimeoutMs = 4_000

type Pair = AsyncDisposable & { res: ServerResponse; response: IncomingMessage }

const connect = async (): Promise<Pair> => {
  const server = createServer()
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const asked = once(server, 'request') as Promise<[IncomingMessage, ServerResponse]>
  const request = get({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', agent: false })
  const answered = once(request, 'response') as Promise<[IncomingMessage]>
  const [, res] = await asked
  res.writeHead(200).flushHeaders()
  const [response] = await answered
  response.on('error', () => undefined)
  return {
    res,
    response,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await once(server.close(), 'close')
    },
  }
}

test('a client that takes a large frame slowly, for longer than it may take nothing, gets all of it', async () => {
  await using pair = await connect()
  const { res, response } = pair
  const signal = new AbortController().signal
  const startedAt = performance.now()
  const written = writeSlowly(res, TEXT, { signal, drainTimeoutMs }).then((took) => {
    res.end()
    return { took, tookMs: performance.now() - startedAt }
  })
  const parts: Buffer[] = []
  for await (const part of response) {
    parts.push(part as Buffer)
    await sleep(20)
  }
  const { took, tookMs } = await written
  expect(took).toBe('whole')
  // Otherwise nothing was tried.
  expect(tookMs).toBeGreaterThan(drainTimeoutMs)
  expect(Buffer.concat(parts).toString() === TEXT).toBe(true)
}, 120_000)

test('a client that takes nothing is given up, and one that is gone is not waited for', async () => {
  await using pair = await connect()
  const gone = new AbortController()
  expect(await writeSlowly(pair.res, TEXT, { signal: gone.signal, drainTimeoutMs: 200 })).toBe('slow')
  const waits = writeSlowly(pair.res, TEXT, { signal: gone.signal, drainTimeoutMs: 60_000 })
  gone.abort()
  expect(await waits).toBe('cut')
})
