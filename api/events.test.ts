import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { endSession } from '../db/session-end.ts'
import { startTestApi } from '../test/api.ts'
import type { TestApi } from '../test/api.ts'
import { buildWrittenSession } from '../test/event-log.ts'
import type { WrittenSession } from '../test/event-log.ts'
import { openStream } from '../test/event-stream.ts'
import type { WireFrame } from '../test/event-stream.ts'

let api: TestApi
let session: WrittenSession
beforeAll(async () => {
  api = await startTestApi()
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
})
beforeEach(async () => {
  session = await buildWrittenSession(api.deps)
})

const urlOf = (query = '', kind = 'events'): string => api.urlOf(`/sessions/${session.id}/${kind}${query}`)
const ids = (frames: WireFrame[]): number[] => frames.flatMap(({ id }) => id ?? [])
const upTo =
  (seq: number) =>
  ({ id }: WireFrame): boolean =>
    id === seq
const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i)

test('a stream begins with a control frame and the log from its start, and goes on live', async () => {
  await session.say(3)
  const stream = await openStream(urlOf())
  expect(stream.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
  expect(stream.headers.get('cache-control')).toBe('no-cache, no-transform')
  expect(stream.headers.get('x-accel-buffering')).toBe('no')
  const before = await stream.until(upTo(5))
  expect(before[0]).toEqual({ id: null, data: { type: 'ready' } })
  expect(ids(before)).toEqual(range(1, 5))
  expect(before[1]?.data).toMatchObject({ type: 'session_event', seq: 1, event: { type: 'session.created' } })
  expect(before[3]?.data).toEqual({
    type: 'harness_event',
    seq: 3,
    event: { type: 'message.part.delta', properties: { sessionID: 'ses_1', delta: 'word1' } },
  })
  const since = performance.now()
  await session.say(2)
  expect(ids(await stream.until(upTo(7)))).toEqual([6, 7])
  expect(performance.now() - since).toBeLessThan(2_000)
  stream.close()
})

test('the raw stream has the harness’ events unchanged, and the platform’s own under lap.', async () => {
  await session.say(1)
  const stream = await openStream(urlOf('', 'stream'))
  const frames = await stream.until(upTo(3))
  expect(frames.map(({ data }) => data.type)).toEqual([
    'stream.opened',
    'lap.session.created',
    'lap.session.ready',
    'message.part.delta',
  ])
  expect(frames[3]).toEqual({
    id: 3,
    data: { type: 'message.part.delta', properties: { sessionID: 'ses_1', delta: 'word1' } },
  })
  stream.close()
})

test.each([
  ['Last-Event-ID', '', { 'last-event-id': '4' }, 4],
  ['?after=', '?after=4', {}, 4],
  ['Last-Event-ID over ?after=', '?after=1', { 'last-event-id': '4' }, 4],
  ['?after=0', '?after=0', {}, 0],
])('%s goes on exactly after it', async (_name, query, headers, after) => {
  await session.say(10)
  const stream = await openStream(urlOf(query), { headers })
  expect(ids(await stream.until(upTo(12)))).toEqual(range(after + 1, 12))
  await session.say(1)
  expect(ids(await stream.until(upTo(13)))).toEqual([13])
  stream.close()
})

test('a client that is cut off again and again while events come misses nothing and sees nothing twice', async () => {
  const total = 400
  const writing = (async () => {
    for (let written = 0; written < total; written += 8) await session.say(8)
  })()
  const seen: number[] = []
  while ((seen.at(-1) ?? 0) < total + 2) {
    const stream = await openStream(urlOf('?follow=1'), { headers: { 'last-event-id': String(seen.at(-1) ?? 0) } })
    const enough = Math.min((seen.at(-1) ?? 0) + 1 + Math.floor(Math.random() * 30), total + 2)
    seen.push(...ids(await stream.until(({ id }) => (id ?? 0) >= enough)))
    stream.close()
  }
  await writing
  expect(seen).toEqual(range(1, total + 2))
})

test('a log of thousands of events comes whole and in order', async () => {
  for (let i = 0; i < 5; i++) await session.say(500)
  const stream = await openStream(urlOf())
  expect(ids(await stream.until(upTo(2_502)))).toEqual(range(1, 2_502))
  stream.close()
})

test.each(['last-seen', '-1', '1.5', '999999999', '99999999999999999999'])(
  'the cursor %s is no place in the log: the client is told so and gets all of it',
  async (cursor) => {
    const stream = await openStream(urlOf(), { headers: { 'last-event-id': cursor } })
    const frames = await stream.until(upTo(2))
    expect(frames[1]).toMatchObject({ id: null, data: { type: 'resync', reason: expect.any(String), last_seq: 2 } })
    expect(ids(frames)).toEqual([1, 2])
    stream.close()
  },
)

test('a stream ends with the turn, or stays with follow=1', async () => {
  const [ending, staying] = [await openStream(urlOf()), await openStream(urlOf('?follow=1'))]
  await Promise.all([ending.until(upTo(2)), staying.until(upTo(2))])
  const turn = await session.begin()
  await session.say(2)
  await session.finish(turn)
  const frames = await ending.rest()
  expect(frames.map(({ id }) => id)).toEqual([3, 4, 5, 6, 7, null])
  expect(frames.at(-1)?.data).toEqual({ type: 'done' })
  await session.say(1)
  expect(ids(await staying.until(upTo(8)))).toEqual(range(3, 8))
  staying.close()
})

test('turns that were over before the client came end nothing; one whose end a returning client missed does', async () => {
  const turn = await session.begin()
  const cursor = String(await session.lastSeq())
  await session.finish(turn)
  const fresh = await openStream(urlOf())
  await fresh.until(upTo(await session.lastSeq()))
  await session.say(1)
  expect(ids(await fresh.until(upTo(await session.lastSeq())))).toHaveLength(1)
  fresh.close()
  const returning = await openStream(urlOf(), { headers: { 'last-event-id': cursor } })
  expect((await returning.rest()).at(-1)?.data).toEqual({ type: 'done' })
})

test('the stream of a session that ends gives its last event and ends; whoever has all of it gets 204', async () => {
  const stream = await openStream(urlOf('?follow=1'))
  await stream.until(upTo(2))
  await endSession(api.deps.sql, session.id, { status: 'dead', endReason: 'deleted' })
  const frames = await stream.rest()
  expect(frames.map(({ data }) => data)).toEqual([
    expect.objectContaining({ event: expect.objectContaining({ type: 'session.ended' }) }),
    { type: 'done' },
  ])
  expect(ids(await (await openStream(urlOf())).rest())).toEqual([1, 2, 3])
  const again = await openStream(urlOf(), { headers: { 'last-event-id': '3' } })
  expect(again.status).toBe(204)
})

test('streams of several clients see the same, and a connection to the database that is lost costs them nothing', async () => {
  const streams = await Promise.all(range(1, 5).map(() => openStream(urlOf('?follow=1'))))
  await Promise.all(streams.map((stream) => stream.until(upTo(2))))
  const killed = await api.deps.sql.query(
    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'lap listen' and datname = current_database()",
  )
  expect(killed).toHaveLength(1)
  await session.say(5)
  for (const stream of streams) {
    expect(ids(await stream.until(upTo(7)))).toEqual(range(3, 7))
    stream.close()
  }
})

test.each(['events', 'stream'])('%s of an unknown session is 404, and without the key 401', async (kind) => {
  expect(await api.call('GET', `/sessions/00000000-0000-4000-8000-000000000000/${kind}`)).toMatchObject({
    status: 404,
    body: { code: 'not_found' },
  })
  expect((await api.call('GET', `/sessions/${session.id}/${kind}`, { headers: { authorization: '' } })).status).toBe(
    401,
  )
})
