import { expect, test } from '@jest/globals'
import { startTestApi } from '../test/api.ts'
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
