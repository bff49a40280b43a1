import { once } from 'node:events'
import { get } from 'node:http'
import type { IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from '@jest/globals'
import { TEST_MASTER_KEY, startTestApi } from '../test/api.ts'
import { buildWrittenSession } from '../test/event-log.ts'
import { openStream } from '../test/event-stream.ts'

test('a server that drains sends streams and waits away with a hint, ends what is in flight, and takes nothing new', async () => {
  await using api = await startTestApi()
  const session = await buildWrittenSession(api.deps)
  const stream = await openStream(api.urlOf(`/sessions/${session.id}/events?follow=1`))
  await stream.until(({ id }) => id === 2)
  const message = api.call('POST', `/sessions/${session.id}/message`, {
    body: { text: 'Think long' },
    headers: { 'idempotency-key': 'once' },
  })
  while ((await session.lastSeq()) < 4) await new Promise((resolve) => setTimeout(resolve, 5))
  const since = performance.now()
  await api.drain()
  expect(performance.now() - since).toBeLessThan(3_000)
  expect((await stream.rest()).every(({ data }) => data.type !== 'done')).toBe(true)
  expect(stream.asides).toContain('retry: 1000')
  const answer = await message
  expect(answer).toMatchObject({ status: 503, body: { code: 'unavailable' } })
  expect(answer.headers.get('retry-after')).toBe('1')
  await expect(fetch(`${api.url}/healthz`)).rejects.toThrow()
  const turn = await api.deps.sql.one('select status from turn where session_id = $1', [session.id])
  expect(turn).toEqual({ status: 'running' })
})

test('a server that drains amid a large frame does not end that frame', async () => {
  await using api = await startTestApi()
  const session = await buildWrittenSession(api.deps)
  await api.deps.sql.query(
    `with logged as (
       insert into event (session_id, seq, type, data, created_at)
       select $1::uuid, 2 + n, 'harness', jsonb_build_object('type', 'message.part.updated', 'properties', jsonb_build_object('text', repeat('x', 20000000))), now()
       from generate_series(1, 2) n)
     update session set last_seq = 4 where id = $1::uuid`,
    [session.id],
  )
  const headers = { authorization: `Bearer ${TEST_MASTER_KEY}` }
  const [response] = (await once(
    get(api.urlOf(`/sessions/${session.id}/events?follow=1`), { headers, agent: false }),
    'response',
  )) as [IncomingMessage]
  // It holds the beginning, and takes no more; its buffers are full a moment later.
  response.once('readable', () => undefined)
  while (response.readableLength < 10_000) await sleep(20)
  await sleep(500)
  const drained = api.drain()
  let text = ''
  const read = async (): Promise<void> => {
    for await (const part of response.setEncoding('utf8')) text += String(part)
  }
  // It may also break off.
  await read().catch(() => undefined)
  await drained
  // What a client takes for whole is.
  const frames = text.split('\n\n').slice(0, -1)
  const ids = frames
    .map((frame) => /^id: (\d+)\ndata: (.*)$/.exec(frame))
    .flatMap((found) => (found === null ? [] : [Number(found[1])]))
  expect(ids).not.toContain(4)
  expect(text.length).toBeGreaterThan(1_000_000)
  for (const frame of frames) JSON.parse(frame.replace(/^(id: \d+\n)?data: /, ''))
}, 60_000)
