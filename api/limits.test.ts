import { afterAll, beforeAll, expect, test } from '@jest/globals'
import type { Agent } from './schemas/agent.ts'
import type { Message } from './schemas/message.ts'
import type { Session } from './schemas/session.ts'
import { startTestApi } from '../test/api.ts'
import type { Answer, Failure, TestApi } from '../test/api.ts'
import { openStream } from '../test/event-stream.ts'

let api: TestApi
beforeAll(async () => {
  api = await startTestApi({ worker: true, env: { WARM_POOL_SIZE: '0' } })
}, 90_000)
afterAll(async () => {
  await api[Symbol.asyncDispose]()
}, 60_000)

const createAgent = async (body: object = {}) =>
  api.call<Agent & Failure>('POST', '/agents', { body: { model: 'demo', harness_id: 'light', ...body } })
const open = async (agent: string, body: object = {}) =>
  (await api.call<Session>('POST', `/agents/${agent}/session?wait=ready`, { body })).body
const send = (id: string, text: string): Promise<Answer<Message & Failure>> =>
  api.call<Message & Failure>('POST', `/sessions/${id}/message`, { body: { text } })
const session = async (id: string) => (await api.call<Session>('GET', `/sessions/${id}`)).body
/** The event of that type that is the `count`th in the log, as soon as it is there. */
const told = async (id: string, type: string, count = 1): Promise<{ data: object }> => {
  const stream = await openStream(api.urlOf(`/sessions/${id}/events?follow=1&after=0`))
  let seen = 0
  const eventOf = (data: Record<string, unknown>) => data['event'] as { type: string; data: object } | undefined
  const frames = await stream.until(({ data }) => eventOf(data)?.type === type && ++seen === count)
  stream.close()
  return eventOf(frames.at(-1)!.data)!
}
const refused = { status: 409, body: { code: 'limit_reached' } }

test('a session has the limits of its request, else of its agent; null in the request is no limit', async () => {
  const { body: agent } = await createAgent({ max_turns: 7, max_cost_usd: 1.5 })
  expect(agent).toMatchObject({ max_turns: 7, max_cost_usd: 1.5 })
  expect(await open(agent.id)).toMatchObject({ max_turns: 7, max_cost_usd: 1.5, limit_reached: null })
  expect(await open(agent.id, { max_turns: 2 })).toMatchObject({ max_turns: 2, max_cost_usd: 1.5 })
  expect(await open(agent.id, { max_turns: null, max_cost_usd: null })).toMatchObject({
    max_turns: null,
    max_cost_usd: null,
  })
  const { body: patched } = await api.call<Agent>('PATCH', `/agents/${agent.id}`, { body: { max_turns: null } })
  expect(patched).toMatchObject({ max_turns: null, max_cost_usd: 1.5 })
  const { body: free } = await createAgent()
  expect(await open(free.id)).toMatchObject({ max_turns: null, max_cost_usd: null })
})

test('the last turn runs to its end, then messages are refused until the limit is raised', async () => {
  const { body: agent } = await createAgent()
  const { id } = await open(agent.id, { max_turns: 1 })
  const last = send(id, 'wait 300\nsay last')
  await told(id, 'turn.started')
  expect(await send(id, 'say more')).toMatchObject({
    ...refused,
    body: { error: expect.stringContaining('max_turns') },
  })
  expect((await last).status).toBe(200)
  expect(await session(id)).toMatchObject({
    status: 'ready',
    limit_reached: 'max_turns',
    usage: { turns: 1, input_tokens: 10, output_tokens: 5, requests: 1, cost_usd: null },
  })
  expect(await told(id, 'session.limit_reached')).toMatchObject({
    data: { limit: 'max_turns', max: 1, used: 1 },
  })
  expect(await send(id, 'say more')).toMatchObject(refused)
  const raised = await api.call<Session>('PATCH', `/sessions/${id}`, { body: { max_turns: 2 } })
  expect(raised).toMatchObject({ status: 200, body: { max_turns: 2, limit_reached: null } })
  expect((await send(id, 'say more')).status).toBe(200)
  expect(await session(id)).toMatchObject({ limit_reached: 'max_turns', usage: { turns: 2, requests: 2 } })
})

test('a message that waited when the limit was lowered is answered with the reason', async () => {
  const { body: agent } = await createAgent()
  const { id } = await open(agent.id)
  const running = send(id, 'wait 1000\nsay done')
  await told(id, 'turn.started')
  const waiting = send(id, 'say never')
  await told(id, 'turn.queued', 2)
  await api.call('PATCH', `/sessions/${id}`, { body: { max_turns: 1 } })
  expect((await running).status).toBe(200)
  expect(await waiting).toMatchObject(refused)
})

test('the first message of a session counts, and a repeated one is answered as before', async () => {
  const { body: agent } = await createAgent({ max_turns: 1 })
  const { id } = await open(agent.id, { initial_prompt: 'say hi' })
  expect(await send(id, 'say more')).toMatchObject(refused)
})

test.each([
  ['no turn', { max_turns: 0 }, 'max_turns'],
  ['half a turn', { max_turns: 1.5 }, 'max_turns'],
  ['no money', { max_cost_usd: 0 }, 'max_cost_usd'],
  ['money as text', { max_cost_usd: '1' }, 'max_cost_usd'],
  ['another field', { max_tokens: 5 }, 'max_tokens'],
])('a limit of %s is 422 with its path, wherever it is given', async (_, body, path) => {
  const { body: agent } = await createAgent()
  const { id } = await open(agent.id)
  const answers = [
    await createAgent(body),
    await api.call<Failure>('PATCH', `/agents/${agent.id}`, { body }),
    await api.call<Failure>('POST', `/agents/${agent.id}/session`, { body }),
    await api.call<Failure>('PATCH', `/sessions/${id}`, { body }),
  ]
  for (const { status, body: failure } of answers)
    expect({ status, path: failure.details?.[0]?.path }).toEqual({ status: 422, path })
})

test('the limits of a session that has ended stay', async () => {
  const { body: agent } = await createAgent()
  const { id } = await open(agent.id)
  await api.call('DELETE', `/sessions/${id}`)
  expect(await api.call('PATCH', `/sessions/${id}`, { body: { max_turns: 5 } })).toMatchObject({ status: 410 })
  expect(await api.call('PATCH', `/sessions/${crypto.randomUUID()}`, { body: { max_turns: 5 } })).toMatchObject({
    status: 404,
  })
})
