import { once } from 'node:events'
import { createConnection } from 'node:net'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { streamDrainTimeoutMs, streamHeartbeatMs } from '../domain/limits.ts'
import { startTestApi, TEST_MASTER_KEY } from '../test/api.ts'
import type { TestApi } from '../test/api.ts'
import { buildWrittenSession } from '../test/event-log.ts'
import type { WrittenSession } from '../test/event-log.ts'
import { openStream } from '../test/event-stream.ts'

const events = 160
const eventBytes = 256 * 1_024
/** What the kernel's buffers between two sockets may take, and a page or two. */
const heldBytesMax = 16 * 1_024 * 1_024

let api: TestApi
let session: WrittenSession
beforeAll(async () => {
  api = await startTestApi()
  session = await buildWrittenSession(api.deps)
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
})

/** A log of 40 MB that does not compress. */
const fillLog = (): Promise<unknown> =>
  api.deps.sql.query(
    `with text as (select string_agg(md5(i::text || random()::text), '') blob from generate_series(1, ${eventBytes / 32}) i),
     logged as (
       insert into event (session_id, seq, type, data, created_at)
       select $1::uuid, 2 + n, 'harness', jsonb_build_object('type', 'message.part.updated', 'properties', jsonb_build_object('n', n, 'text', blob)), now()
       from generate_series(1, ${events}) n, text)
     update session set last_seq = 2 + ${events} where id = $1::uuid`,
    [session.id],
  )

/** Counts what is read from the log from now on. */
const countReads = (): (() => number) => {
  const { sql } = api.deps
  const { query } = sql
  let bytes = 0
  sql.query = async <T>(text: string, params?: unknown[]) => {
    const rows = await query<T>(text, params)
    if (text.includes('from event')) bytes += JSON.stringify(rows).length
    return rows
  }
  return () => bytes
}

/** A client that asks and then takes nothing. */
const deafClient = async (): Promise<Socket> => {
  const { port } = new URL(api.url)
  const socket = createConnection({ port: Number(port), host: '127.0.0.1' })
  await once(socket, 'connect')
  socket.pause()
  socket.write(
    `GET ${new URL(api.urlOf(`/sessions/${session.id}/events`)).pathname} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${TEST_MASTER_KEY}\r\n\r\n`,
  )
  return socket
}

test('a client that takes nothing costs no memory and is dropped in time; others get their heartbeats and the log meanwhile', async () => {
  await fillLog()
  const read = countReads()
  const slow = await deafClient()
  const dropped = once(slow, 'close')
  const quiet = await openStream(api.urlOf(`/sessions/${session.id}/events?after=${2 + events}&follow=1`))
  const listening = quiet.rest().catch(() => [])
  await sleep(streamHeartbeatMs + 1_000)
  expect(quiet.asides).toEqual([': heartbeat'])
  const held = read()
  expect(held).toBeGreaterThan(0)
  expect(held).toBeLessThan(heldBytesMax)
  quiet.close()
  await listening

  const eager = await openStream(api.urlOf(`/sessions/${session.id}/events`))
  const frames = await eager.until(({ id }) => id === 2 + events)
  expect(frames.map(({ id }) => id)).toEqual([null, ...Array.from({ length: 2 + events }, (_, i) => i + 1)])
  eager.close()

  const wasDropped = (): boolean =>
    api.logged.some((line) => line.includes('"event":"stream_dropped"') && line.includes(session.id))
  const latest = performance.now() + streamDrainTimeoutMs
  while (!wasDropped() && performance.now() < latest) await sleep(100)
  expect(wasDropped()).toBe(true)
  slow.resume()
  await dropped
}, 90_000)
