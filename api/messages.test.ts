import { afterAll, beforeAll, expect, test } from '@jest/globals'
import type { LogEntry, Message } from './schemas/message.ts'
import type { Session } from './schemas/session.ts'
import { GATEWAY_KEY, startTestApi } from '../test/api.ts'
import type { Failure, TestApi } from '../test/api.ts'
import { openStream } from '../test/event-stream.ts'
import { until } from '../test/until.ts'

let api: TestApi
let agent: string
beforeAll(async () => {
  // A pool of none: each test knows which sandbox serves it.
  api = await startTestApi({ worker: true, env: { WARM_POOL_SIZE: '0' } })
  const body = { model: 'demo', harness_id: 'light', prompt: 'Be brief.' }
  agent = (await api.call<{ id: string }>('POST', '/agents', { body })).body.id
}, 90_000)
afterAll(async () => {
  await api[Symbol.asyncDispose]()
}, 60_000)

const open = async (body: object = {}, query = '?wait=ready'): Promise<Session> => {
  const { body: session } = await api.call<Session>('POST', `/agents/${agent}/session${query}`, { body })
  return session
}
const send = (id: string, text: string, options: { signal?: AbortSignal; headers?: Record<string, string> } = {}) =>
  api.call<Message>('POST', `/sessions/${id}/message`, { body: { text }, ...options })
const textOf = ({ parts }: Message): string =>
  parts.map((part) => (typeof part['text'] === 'string' ? part['text'] : '')).join('')
const thread = async (id: string): Promise<Message[]> =>
  (await api.call<Message[]>('GET', `/sessions/${id}/messages`)).body

test('a message is answered with the harness’ reply, which stays in the thread and the log after the session is gone', async () => {
  const session = await open({ title: 'Talk' })
  expect(session).toMatchObject({ status: 'ready', spawn_mode: 'cold', claim_outcome: 'miss_disabled' })
  const { status, body, headers } = await send(session.id, 'say hello there')
  expect({ status, text: textOf(body) }).toEqual({ status: 200, text: 'hello there' })
  expect(body.info).toMatchObject({ role: 'assistant' })
  const [request] = api.model.requests.slice(-1)
  expect(request).toMatchObject({ model: 'demo', authorization: `Bearer ${GATEWAY_KEY}` })
  expect(JSON.stringify(request?.messages)).toContain('Be brief.')

  await api.call('DELETE', `/sessions/${session.id}`)
  const said = await thread(session.id)
  expect(said.map(({ info, parts }) => [info['role'], textOf({ info, parts })])).toEqual([
    ['user', 'say hello there'],
    ['assistant', 'hello there'],
  ])
  expect(said[0]?.info).toMatchObject({
    id: headers.get('lap-turn-id'),
    status: 'done',
    sessionID: session.id,
    usage: { input_tokens: 10, output_tokens: 5, cached_tokens: 0, cost_usd: null, requests: 1 },
  })
  const log = (await api.call<LogEntry[]>('GET', `/sessions/${session.id}/log`)).body
  expect(log.map(({ kind }) => kind)).toEqual(['created', 'user', 'response', 'ended'])
  expect(log[2]).toMatchObject({ detail: 'hello there', meta: expect.stringContaining('tok') })
})

test('messages run one at a time in the order in which they came, also those sent while the session is created', async () => {
  const session = await open({ initial_prompt: 'say first' }, '')
  expect(session.status).toBe('creating')
  const answers = await Promise.all([send(session.id, 'say second'), send(session.id, 'say third')])
  expect(new Set(answers.map(({ body }) => textOf(body)))).toEqual(new Set(['second', 'third']))
  const said = (await thread(session.id)).map(textOf)
  expect(said.slice(0, 2)).toEqual(['say first', 'first'])
  expect(said.toSorted()).toEqual(['first', 'second', 'third', 'say first', 'say second', 'say third'].toSorted())
  for (let i = 0; i < said.length; i += 2) expect(said[i]).toBe(`say ${said[i + 1]}`)
})

test('message_stream shows what the harness says of this turn and then the reply; its ids are those of the log', async () => {
  const session = await open()
  const first = send(session.id, 'wait 300\nsay not this')
  await until('the message is there', 30_000, async () => (await thread(session.id)).length > 0)
  const stream = await openStream(api.urlOf(`/sessions/${session.id}/message_stream`), {
    method: 'POST',
    body: { text: 'stream 3 5' },
  })
  expect(stream.headers.get('lap-turn-id')).toMatch(/^[0-9a-f-]{36}$/)
  const frames = await stream.rest()
  await first
  expect(frames[0]).toMatchObject({ id: null, data: { type: 'ready', turn_id: stream.headers.get('lap-turn-id') } })
  expect(frames.at(-1)).toMatchObject({ id: null, data: { type: 'done', reply: { info: { role: 'assistant' } } } })
  expect(textOf(frames.at(-1)?.data['reply'] as Message)).toBe('word0 word1 word2 ')
  expect(JSON.stringify(frames)).not.toContain('not this')
  const deltas = frames.flatMap(({ data }) => {
    const event = data['event'] as { type: string; properties: { delta?: string } } | undefined
    return event?.type === 'message.part.delta' ? [event.properties.delta] : []
  })
  expect(deltas).toEqual(['word0 ', 'word1 ', 'word2 '])
  const seen = frames.flatMap(({ id, data }) => (id === null ? [] : [{ id, event: data['event'] }]))
  const log = await openStream(api.urlOf(`/sessions/${session.id}/events?after=${seen[0]!.id - 1}&follow=1`))
  const same = (await log.until(({ id }) => id === seen.at(-1)!.id)).filter(({ data }) => data.type === 'harness_event')
  expect(same.map(({ id, data }) => ({ id, event: data['event'] }))).toEqual(seen)
  log.close()
})

test('a client that goes away does not end its turn; repeating the message with its key gets the reply', async () => {
  const session = await open()
  const leaving = new AbortController()
  const headers = { 'idempotency-key': 'leaving' }
  const sent = send(session.id, 'wait 500\nsay still here', { signal: leaving.signal, headers }).catch(() => 'gone')
  await until('the message is there', 30_000, async () => (await thread(session.id)).length > 0)
  leaving.abort()
  expect(await sent).toBe('gone')
  const again = await send(session.id, 'wait 500\nsay still here', { headers })
  expect({ status: again.status, text: textOf(again.body) }).toEqual({ status: 200, text: 'still here' })
  expect(await thread(session.id)).toHaveLength(2)
})

test('abort cancels what runs and what waits; the session goes on', async () => {
  const session = await open()
  const first = send(session.id, 'wait 20000\nsay never')
  await until('it is worked on', 30_000, async () => (await thread(session.id))[0]?.info['status'] === 'running')
  const answers = [first, send(session.id, 'say neither')]
  await until('both are there', 30_000, async () => (await thread(session.id)).length === 2)
  expect(await api.call('POST', `/sessions/${session.id}/abort`)).toMatchObject({ status: 200, body: { ok: true } })
  for (const { status, body } of await Promise.all(answers))
    expect({ status, body }).toMatchObject({ status: 409, body: { code: 'turn_cancelled' } })
  expect(textOf((await send(session.id, 'say better')).body)).toBe('better')
  expect(await api.call('POST', `/sessions/${session.id}/abort`)).toMatchObject({ status: 200 })
})

test('a model that fails is 502 that names it, and the next message is answered', async () => {
  const session = await open()
  const failed = await api.call<Failure>('POST', `/sessions/${session.id}/message`, { body: { text: 'fail 400' } })
  expect(failed).toMatchObject({ status: 502, body: { code: 'harness_error', error: expect.stringContaining('400') } })
  const stream = await openStream(api.urlOf(`/sessions/${session.id}/message_stream`), {
    method: 'POST',
    body: { text: 'fail 400' },
  })
  expect((await stream.rest()).at(-1)?.data).toMatchObject({ type: 'error', code: 'harness_error' })
  expect(textOf((await send(session.id, 'say well')).body)).toBe('well')
})

test('a restart moves the session: the conversation goes on, the turn that ran is interrupted and not run again', async () => {
  const session = await open()
  await send(session.id, 'say the word is plum')
  const running = send(session.id, 'wait 20000\nsay never')
  await until('it is worked on', 30_000, async () => (await thread(session.id)).at(-1)?.info['status'] === 'running')
  await api.call('POST', `/sessions/${session.id}/restart`)
  expect(await running).toMatchObject({ status: 409, body: { code: 'turn_interrupted' } })
  const moved = await until('the session has moved', 30_000, async () => {
    const { body } = await api.call<Session>('GET', `/sessions/${session.id}`)
    return body.attempt === 2 && body.sandbox_url !== null && body
  })
  expect(moved).toMatchObject({ status: 'ready' })
  expect(moved.task_arn).not.toBe(session.task_arn)
  expect(textOf((await send(session.id, 'say here again')).body)).toBe('here again')
  expect(JSON.stringify(api.model.requests.at(-1)?.messages)).toContain('the word is plum')
  const log = (await api.call<LogEntry[]>('GET', `/sessions/${session.id}/log`)).body
  expect(log.map(({ kind }) => kind)).toContain('recovered')
})

test.each<[string, object, string]>([
  ['nothing', {}, ''],
  ['an empty text', { text: '' }, ''],
  ['a part without a type', { parts: [{ text: 'x' }] }, 'parts[0].type'],
  [
    'a picture of an unknown kind',
    { attachments: [{ mime_type: 'image/tiff', base64: 'AA==' }] },
    'attachments[0].mime_type',
  ],
  ['an unknown field', { txt: 'x' }, 'txt'],
])('a message of %s is 422 with its path', async (_name, body, path) => {
  const session = await open({}, '')
  const answer = await api.call<Failure>('POST', `/sessions/${session.id}/message`, { body })
  expect(answer).toMatchObject({ status: 422, body: { code: 'invalid' } })
  expect(answer.body.details?.[0]?.path).toBe(path)
  await api.call('DELETE', `/sessions/${session.id}`)
})

test('a hundred messages may wait in a session; the next is 429 with Retry-After', async () => {
  const session = await open({}, '')
  const gone = new AbortController()
  const waiting = Array.from({ length: 100 }, () =>
    send(session.id, 'wait 60000', { signal: gone.signal }).catch(() => null),
  )
  await until('all are there', 30_000, async () => (await thread(session.id)).length === 100)
  const answer = await send(session.id, 'one more')
  expect(answer).toMatchObject({ status: 429, body: { code: 'rate_limited' } })
  expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
  await api.call('DELETE', `/sessions/${session.id}`)
  const answers = await Promise.all(waiting)
  expect(new Set(answers.map((one) => one?.status))).toEqual(new Set([410]))
  gone.abort()
})

test('deleting a session answers those who wait for its turns with 410 and how it ended', async () => {
  const session = await open()
  const waiting = api.call<Failure>('POST', `/sessions/${session.id}/message`, { body: { text: 'wait 20000' } })
  await until('the message is there', 30_000, async () => (await thread(session.id)).length > 0)
  await api.call('DELETE', `/sessions/${session.id}`)
  expect(await waiting).toMatchObject({
    status: 410,
    body: { code: 'gone', error: expect.stringContaining('deleted') },
  })
})

test('sandboxes can be made while a worker runs', async () => {
  expect(await api.call('GET', '/api/v1/health/k8s')).toMatchObject({
    status: 200,
    body: { ok: true, driver: 'local' },
  })
})
