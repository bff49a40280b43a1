import { once } from 'node:events'
import { get } from 'node:http'
import type { IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { streamDrainTimeoutMs, streamHeartbeatMs } from '../domain/limits.ts'
import { startTestApi, TEST_MASTER_KEY } from '../test/api.ts'
import type { TestApi } from '../test/api.ts'
import { buildWrittenSession } from '../test/event-log.ts'
import type { WrittenSession } from '../test/event-log.ts'
import { openStream } from '../test/event-stream.ts'

const events = 100
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

/** A log of 25 MB that does not compress. */
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
const deafClient = async (): Promise<IncomingMessage> => {
  const headers = { authorization: `Bearer ${TEST_MASTER_KEY}` }
  const [response] = await once(get(api.urlOf(`/sessions/${session.id}/events`), { headers, agent: false }), 'response')
  return response as IncomingMessage
}

/** What was on its way to a client that has been cut off. @returns numbers of the frames that came whole */
const leftFor = async (response: IncomingMessage): Promise<number[]> => {
  let text = ''
  const reading = async (): Promise<void> => {
    for await (const part of response.setEncoding('utf8')) text += String(part)
  }
  await expect(reading()).rejects.toThrow('aborted')
  return [...text.matchAll(/^id: (\d+)\ndata: .*\n\n/gm)].map(([, id]) => Number(id))
}

test('a client that takes nothing costs no memory, is dropped in time, and comes back for the rest; others get their heartbeats and the log meanwhile', async () => {
  await fillLog()
  const read = countReads()
  const slow = await deafClient()
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
  const latest = performance.now() + 2 * streamDrainTimeoutMs
  while (!wasDropped() && performance.now() < latest) await sleep(100)
  expect(wasDropped()).toBe(true)
  const first = await leftFor(slow)
  expect(first.length).toBeLessThan(2 + events)
  const back = await openStream(api.urlOf(`/sessions/${session.id}/events`), {
    headers: { 'last-event-id': String(first.at(-1)) },
  })
  const rest = (await back.until(({ id }) => id === 2 + events)).flatMap(({ id }) => id ?? [])
  expect([...first, ...rest]).toEqual(Array.from({ length: 2 + events }, (_, i) => i + 1))
  back.close()
}, 240_000)
