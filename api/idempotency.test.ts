import { afterAll, beforeAll, expect, test } from '@jest/globals'
import type { Session } from './schemas/session.ts'
import { startTestApi } from '../test/api.ts'
import type { Failure, TestApi } from '../test/api.ts'
import { buildWrittenSession } from '../test/event-log.ts'

let api: TestApi
let agent: string
beforeAll(async () => {
  api = await startTestApi()
  agent = (await api.call<{ id: string }>('POST', '/agents', { body: { model: 'demo', harness_id: 'light' } })).body.id
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
})

const open = (key: string, body: object = { title: 'x' }, agentId = agent) =>
  api.call<Session>('POST', `/agents/${agentId}/session`, { body, headers: { 'idempotency-key': key } })

test('the same key and body give the same session, marked as replayed; nothing is made twice', async () => {
  const first = await open('a')
  const second = await open('a')
  expect(second).toMatchObject({ status: 200, body: { id: first.body.id } })
  expect([first.headers.get('idempotent-replayed'), second.headers.get('idempotent-replayed')]).toEqual([null, 'true'])
  const outbox = await api.deps.sql.query('select kind from outbox where subject = $1', [first.body.id])
  expect(outbox).toHaveLength(1)
})

test('twenty repetitions at once make one session and take one sandbox', async () => {
  await api.warmSandbox(agent)
  await api.warmSandbox(agent)
  const answers = await Promise.all(Array.from({ length: 20 }, () => open('all at once'.replaceAll(' ', '-'))))
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200))
  expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1)
  expect(new Set(answers.map(({ body }) => body.status))).toEqual(new Set(['ready']))
  expect(await api.deps.sql.query("select id from sandbox where state = 'warm'")).toHaveLength(1)
})

test('a session that has ended is still the answer to its key', async () => {
  const { body } = await open('ended')
  await api.call('DELETE', `/sessions/${body.id}`)
  expect((await open('ended')).body).toMatchObject({ id: body.id, status: 'dead' })
})

test('a key is answered with its session also when the agent has been deleted since; a new key there is 404', async () => {
  const { body: made } = await api.call<{ id: string }>('POST', '/agents', { body: { model: 'demo' } })
  const { body: session } = await open('agent-gone', { title: 'x' }, made.id)
  await api.call('DELETE', `/agents/${made.id}`)
  expect(await open('agent-gone', { title: 'x' }, made.id)).toMatchObject({ status: 200, body: { id: session.id } })
  expect(await open('agent-gone', { title: 'y' }, made.id)).toMatchObject({ status: 409 })
  expect(await open('agent-gone-new', { title: 'x' }, made.id)).toMatchObject({
    status: 404,
    body: { code: 'not_found' },
  })
})

test.each<[string, object, boolean]>([
  ['another body', { title: 'y' }, false],
  ['another agent', { title: 'x' }, true],
])('the same key with %s is 409 and says what to do', async (name, body, otherAgent) => {
  const key = `reused-${name.length}`
  await open(key)
  const other = otherAgent
    ? (await api.call<{ id: string }>('POST', '/agents', { body: { model: 'demo' } })).body.id
    : agent
  const answer = await api.call<Failure>('POST', `/agents/${other}/session`, {
    body,
    headers: { 'idempotency-key': key },
  })
  expect(answer).toMatchObject({ status: 409, body: { code: 'conflict' } })
  expect(answer.body.error).toContain('use a new key')
})

test.each(['has space', 'é', 'x'.repeat(256)])('the key "%s" is 422 that names the header', async (key) => {
  const answer = await api.call<Failure>('POST', `/agents/${agent}/session`, {
    body: {},
    headers: { 'idempotency-key': key },
  })
  expect(answer).toMatchObject({ status: 422 })
  expect(answer.body.details?.[0]?.path).toBe('header.Idempotency-Key')
})

test('a message repeated with its key joins the first: one turn, one reply to both; another message is 409', async () => {
  const session = await buildWrittenSession(api.deps)
  const send = (text: string) =>
    api.call<{ parts: unknown[] }>('POST', `/sessions/${session.id}/message`, {
      body: { text },
      headers: { 'idempotency-key': 'm1' },
    })
  const [first, second] = [send('hello'), send('hello')]
  const turns = () => api.deps.sql.query<{ id: string }>('select id from turn where session_id = $1', [session.id])
  while ((await turns()).length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  expect(await send('other')).toMatchObject({ status: 409, body: { code: 'conflict' } })
  const [turn, ...more] = await turns()
  expect(more).toEqual([])
  await session.finish(turn!.id)
  const answers = [await first, await second, await send('hello')]
  for (const { status, headers, body } of answers) {
    expect({ status, body }).toEqual({
      status: 200,
      body: { info: { role: 'assistant' }, parts: [{ type: 'text', text: 'Done.' }] },
    })
    expect(headers.get('lap-turn-id')).toBe(turn!.id)
  }
  expect(answers.filter(({ headers }) => headers.get('idempotent-replayed') === 'true')).toHaveLength(2)
})

test('the same key names different messages in different sessions', async () => {
  const sessions = [await buildWrittenSession(api.deps), await buildWrittenSession(api.deps)]
  for (const { id } of sessions) {
    const enough = new AbortController()
    const sending = api
      .call('POST', `/sessions/${id}/message`, {
        body: { text: id },
        headers: { 'idempotency-key': 'shared' },
        signal: enough.signal,
      })
      .catch(() => null)
    const count = () => api.deps.sql.query('select from turn where session_id = $1', [id])
    while ((await count()).length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    enough.abort()
    await sending
  }
})
