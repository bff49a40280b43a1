import { afterAll, beforeAll, expect, test } from '@jest/globals'
import type { Message } from './schemas/message.ts'
import type { Permission } from './schemas/permission.ts'
import type { Session } from './schemas/session.ts'
import { startTestApi } from '../test/api.ts'
import type { Answer, Failure, TestApi } from '../test/api.ts'
import { openStream } from '../test/event-stream.ts'
import { until } from '../test/until.ts'

let api: TestApi
beforeAll(async () => {
  api = await startTestApi({ worker: true, env: { WARM_POOL_SIZE: '0' } })
}, 90_000)
afterAll(async () => {
  await api[Symbol.asyncDispose]()
}, 60_000)

const open = async (policy: object = { permissions: 'ask' }): Promise<string> => {
  const body = { model: 'demo', harness_id: 'light', ...policy }
  const { body: agent } = await api.call<{ id: string }>('POST', '/agents', { body })
  return (await api.call<Session>('POST', `/agents/${agent.id}/session?wait=ready`, { body: {} })).body.id
}
const send = (id: string, text: string): Promise<Answer<Message & Failure>> =>
  api.call<Message & Failure>('POST', `/sessions/${id}/message`, { body: { text } })
const textOf = ({ body }: Answer<Message>): string =>
  body.parts.map((part) => (typeof part['text'] === 'string' ? part['text'] : '')).join('')
const session = async (id: string) => (await api.call<Session>('GET', `/sessions/${id}`)).body
const permissions = async (id: string, query = '') =>
  (await api.call<Permission[]>('GET', `/sessions/${id}/permissions${query}`)).body
const asked = (id: string) => until('the harness asks', 30_000, async () => (await permissions(id, '?status=open'))[0])
const reply = (id: string, permission: string, decision: string) =>
  api.call<Permission & Failure>('POST', `/sessions/${id}/permissions/${permission}`, { body: { decision } })
const ask = 'ask execute rm -rf build\nsay done'

test('a question of the harness waits for an answer, which it hears once; the session says that it waits', async () => {
  const id = await open()
  const answer = send(id, ask)
  const permission = await asked(id)
  expect(permission).toMatchObject({
    session_id: id,
    kind: 'execute',
    title: 'rm -rf build',
    tool: { name: 'light', call_id: null, input: { title: 'rm -rf build' } },
    status: 'open',
    decision: null,
  })
  expect(Date.parse(permission.expires_at) - Date.parse(permission.asked_at)).toBe(60 * 60_000)
  expect(await session(id)).toMatchObject({ status: 'ready', needs_input: true })
  const listed = async () => (await api.call<Session[]>('GET', '/sessions?needs_input=true')).body.map((one) => one.id)
  expect(await listed()).toEqual([id])

  for (let i = 0; i < 3; i++)
    expect(await reply(id, permission.id, 'allow')).toMatchObject({
      status: 200,
      body: { status: 'allowed', decision: 'allow', decided_by: 'user' },
    })
  expect(textOf(await answer)).toBe('allow: rm -rf build\ndone')
  expect(await reply(id, permission.id, 'allow')).toMatchObject({ status: 200 })
  expect(await reply(id, permission.id, 'deny')).toMatchObject({ status: 409, body: { code: 'permission_decided' } })
  expect(await permissions(id)).toMatchObject([{ id: permission.id, delivered_at: expect.any(String) }])
  expect(await session(id)).toMatchObject({ needs_input: false })
  expect(await listed()).toEqual([])
})

test('streams show the question and the answer', async () => {
  const id = await open()
  const answer = send(id, ask)
  const { id: permission } = await asked(id)
  await reply(id, permission, 'deny')
  expect(textOf(await answer)).toBe('deny: rm -rf build\ndone')
  const stream = await openStream(api.urlOf(`/sessions/${id}/events?follow=1&after=0`))
  const frames = await stream.until(({ data }) => JSON.stringify(data).includes('"turn.finished"'))
  stream.close()
  const shown = frames.flatMap(({ data }) => {
    const event = data['event'] as { type: string; data: object } | undefined
    return event?.type.startsWith('permission.') === true ? [event] : []
  })
  expect(shown).toMatchObject([
    { type: 'permission.asked', data: { permission: { id: permission, kind: 'execute' } } },
    { type: 'permission.replied', data: { permission_id: permission, decision: 'deny', decided_by: 'user' } },
  ])
})

test('what is allowed for good is not asked again', async () => {
  const id = await open()
  const first = send(id, ask)
  await reply(id, (await asked(id)).id, 'allow_always')
  expect(textOf(await first)).toBe('allow_always: rm -rf build\ndone')
  expect(textOf(await send(id, ask))).toBe('allow: rm -rf build\ndone')
  expect(await permissions(id)).toHaveLength(1)
})

test('the agent’s policy answers by kind what it does not leave to people', async () => {
  const id = await open({ permissions: { default: 'deny', execute: 'allow', edit: 'ask' } })
  expect((await session(id)).permissions).toEqual({ default: 'deny', execute: 'allow', edit: 'ask' })
  const answer = send(id, 'ask execute ls\nask fetch example.com\nask edit a.txt\nsay done')
  expect(await asked(id)).toMatchObject({ kind: 'edit', title: 'a.txt' })
  await reply(id, (await asked(id)).id, 'allow')
  expect(textOf(await answer)).toBe('allow: ls\ndeny: example.com\nallow: a.txt\ndone')
  expect(await permissions(id)).toHaveLength(1)
})

test('by default a harness may do what it likes', async () => {
  const id = await open({})
  expect(textOf(await send(id, ask))).toBe('allow: rm -rf build\ndone')
  expect(await session(id)).toMatchObject({ permissions: { default: 'allow' } })
})

test('what nobody answers in time is denied, and an answer after that is 410', async () => {
  const id = await open()
  const answer = send(id, ask)
  const permission = await asked(id)
  await api.deps.sql.query("update permission set expires_at = now() - interval '1 second' where id = $1", [
    permission.id,
  ])
  expect(textOf(await answer)).toBe('deny: rm -rf build\ndone')
  expect(await permissions(id)).toMatchObject([{ status: 'expired', decision: 'deny', decided_by: 'deadline' }])
  for (const decision of ['allow', 'deny'])
    expect(await reply(id, permission.id, decision)).toMatchObject({
      status: 410,
      body: { code: 'permission_expired' },
    })
})

test('a question whose turn is aborted takes no answer', async () => {
  const id = await open()
  const answer = send(id, ask)
  const permission = await asked(id)
  await api.call('POST', `/sessions/${id}/abort`)
  expect(await answer).toMatchObject({ status: 409, body: { code: 'turn_cancelled' } })
  expect(await reply(id, permission.id, 'allow')).toMatchObject({ status: 410, body: { code: 'permission_over' } })
  expect(await permissions(id)).toMatchObject([{ status: 'cancelled', decision: null, decided_by: 'turn_over' }])
  expect(textOf(await send(id, 'say well'))).toBe('well')
})

test.each([
  ['no decision', {}, 'decision'],
  ['another decision', { decision: 'maybe' }, 'decision'],
  ['an unknown field', { decision: 'allow', scope: 'once' }, 'scope'],
])('an answer with %s is 422 with its path, and nothing is decided', async (_, body, path) => {
  const id = await open()
  const answer = send(id, ask)
  const permission = await asked(id)
  const { status, body: failure } = await api.call<Failure>('POST', `/sessions/${id}/permissions/${permission.id}`, {
    body,
  })
  expect({ status, path: failure.details?.[0]?.path }).toEqual({ status: 422, path })
  expect((await permissions(id))[0]?.status).toBe('open')
  await api.call('DELETE', `/sessions/${id}`)
  expect((await answer).status).toBe(410)
  expect(await reply(id, permission.id, 'allow')).toMatchObject({ status: 410, body: { code: 'permission_over' } })
})

test('a question that nobody has asked is 404', async () => {
  const id = await open()
  for (const other of ['x', crypto.randomUUID()]) expect(await reply(id, other, 'allow')).toMatchObject({ status: 404 })
})

test.each([
  ['another word', 'maybe', 'permissions'],
  ['no default', { execute: 'ask' }, 'permissions'],
  ['an unknown kind', { default: 'ask', shell: 'deny' }, 'permissions.shell'],
  ['an unknown rule', { default: 'ask', edit: 'maybe' }, 'permissions'],
])('a policy of %s is 422 that says what would be right', async (_, policy, path) => {
  const body = { model: 'demo', harness_id: 'light', permissions: policy }
  const answer = await api.call<Failure>('POST', '/agents', { body })
  expect(answer).toMatchObject({
    status: 422,
    body: { details: [{ path, message: expect.stringContaining('execute, edit, fetch, other') }] },
  })
})

test('a policy is changed for sessions to come; those that are keep theirs', async () => {
  const id = await open({ permissions: 'ask' })
  const { agent_id: agent } = await session(id)
  expect(await api.call('PATCH', `/agents/${agent}`, { body: { permissions: 'deny' } })).toMatchObject({
    status: 200,
    body: { permissions: { default: 'deny' } },
  })
  const { body: next } = await api.call<Session>('POST', `/agents/${agent}/session`, { body: {} })
  expect(next.permissions).toEqual({ default: 'deny' })
  expect((await session(id)).permissions).toEqual({ default: 'ask' })
})
