import { afterAll, beforeAll, expect, test } from '@jest/globals'
import type { Message, QueuedMessage } from './schemas/message.ts'
import type { Session } from './schemas/session.ts'
import { startTestApi } from '../test/api.ts'
import type { Answer, Failure, TestApi } from '../test/api.ts'
import { until } from '../test/until.ts'

let api: TestApi
let agent: string
beforeAll(async () => {
  api = await startTestApi({ worker: true, env: { WARM_POOL_SIZE: '0' } })
  const body = { model: 'demo', harness_id: 'light' }
  agent = (await api.call<{ id: string }>('POST', '/agents', { body })).body.id
}, 90_000)
afterAll(async () => {
  await api[Symbol.asyncDispose]()
}, 60_000)

const open = async (): Promise<string> =>
  (await api.call<Session>('POST', `/agents/${agent}/session?wait=ready`, { body: {} })).body.id
const send = (id: string, text: string): Promise<Answer<Message & Failure>> =>
  api.call<Message & Failure>('POST', `/sessions/${id}/message`, { body: { text } })
const textOf = ({ parts }: Pick<Message, 'parts'>): string =>
  parts.map((part) => (typeof part['text'] === 'string' ? part['text'] : '')).join('')
const thread = async (id: string) => (await api.call<Message[]>('GET', `/sessions/${id}/messages`)).body
const queue = async (id: string) => (await api.call<QueuedMessage[]>('GET', `/sessions/${id}/queue`)).body
const runs = (id: string, text: string) =>
  until(`it works on ${text}`, 30_000, async () =>
    (await thread(id)).some((one) => one.info['status'] === 'running' && textOf(one).includes(text)),
  )

/** A session in which one message runs for long and others wait, in this order. */
const busy = async (...texts: string[]) => {
  const id = await open()
  const running = send(id, 'wait 60000\nsay never')
  await runs(id, 'never')
  const waiting: Promise<Answer<Message & Failure>>[] = []
  for (const text of texts) {
    waiting.push(send(id, text))
    await until('it waits', 30_000, async () => (await queue(id)).length === waiting.length)
  }
  const messages = await queue(id)
  expect(messages.map(textOf)).toEqual(texts)
  return { id, running, waiting, ids: messages.map((message) => message.id) }
}
const cancelled = { status: 409, body: { code: 'turn_cancelled' } }

test('a waiting message is changed, another one taken back; the conversation goes on as the user left it', async () => {
  const { id, running, waiting, ids } = await busy('say frist', 'say nothing', 'say last')
  const path = `/sessions/${id}/messages/${ids[0]}`
  const edited = await api.call<QueuedMessage>('PATCH', path, { body: { text: 'say first' } })
  expect(edited).toMatchObject({ status: 200, body: { id: ids[0], parts: [{ text: 'say first' }] } })
  expect(edited.body.edited_at).not.toBeNull()
  for (let i = 0; i < 2; i++)
    expect(await api.call('DELETE', `/sessions/${id}/messages/${ids[1]}`)).toMatchObject({
      status: 200,
      body: { id: ids[1], status: 'deleted' },
    })
  expect(await waiting[1]).toMatchObject(cancelled)
  expect((await queue(id)).map(textOf)).toEqual(['say first', 'say last'])
  await api.call('POST', `/sessions/${id}/messages/${ids[2]}/send_now`)
  expect(await running).toMatchObject(cancelled)
  expect(textOf((await waiting[2])!.body)).toBe('last')
  expect(textOf((await waiting[0])!.body)).toBe('first')
  expect((await thread(id)).map(textOf)).toEqual([
    'wait 60000\nsay never',
    '',
    'say last',
    'last',
    'say first',
    'first',
  ])
  expect(JSON.stringify(api.model.requests.at(-1)?.messages)).not.toContain('nothing')
})

test('a message sent now stops what runs and is next; sent now again, it is left alone', async () => {
  const { id, running, waiting, ids } = await busy('say later', 'wait 1000\nsay now')
  const now = () =>
    api.call<{ status: string; interrupted_turn_id: string | null }>(
      'POST',
      `/sessions/${id}/messages/${ids[1]}/send_now`,
    )
  const [runningId] = (await thread(id)).map(({ info }) => info['id'])
  expect(await now()).toMatchObject({ status: 200, body: { status: 'queued', interrupted_turn_id: runningId } })
  expect(await running).toMatchObject(cancelled)
  await runs(id, 'now')
  expect(await now()).toMatchObject({ status: 200, body: { status: 'running', interrupted_turn_id: null } })
  expect(textOf((await waiting[1])!.body)).toBe('now')
  expect(textOf((await waiting[0])!.body)).toBe('later')
  expect(await now()).toMatchObject({ status: 409, body: { code: 'turn_over' } })
})

test('a message that has begun is left as it is, and the refusal says what happened', async () => {
  const { id } = await busy()
  const [running] = (await thread(id)).map(({ info }) => String(info['id']))
  const path = `/sessions/${id}/messages/${running}`
  const started = { status: 409, body: { code: 'turn_started', error: expect.stringContaining('runs already') } }
  expect(await api.call('PATCH', path, { body: { text: 'x' } })).toMatchObject(started)
  expect(await api.call('DELETE', path)).toMatchObject(started)
  await api.call('POST', `/sessions/${id}/abort`)
  await until('it is cancelled', 30_000, async () => (await thread(id))[0]?.info['status'] === 'cancelled')
  expect(await api.call('DELETE', path)).toMatchObject({ status: 409, body: { code: 'turn_over' } })
})

test('a message that is not there is 404, one of an ended session 410, and a change without a change 422', async () => {
  const { id, ids, running, waiting } = await busy('say x')
  for (const other of ['x', crypto.randomUUID()])
    for (const [method, path] of [
      ['PATCH', ''],
      ['DELETE', ''],
      ['POST', '/send_now'],
    ] as const)
      expect(await api.call(method, `/sessions/${id}/messages/${other}${path}`, { body: { text: 'x' } })).toMatchObject(
        { status: 404 },
      )
  const faults: [object, string][] = [
    [{}, ''],
    [{ text: '' }, 'text'],
    [{ text: 'x', parts: [{ type: 'text', text: 'y' }] }, 'parts'],
    [{ texd: 'x' }, 'texd'],
  ]
  for (const [body, where] of faults) {
    const { status, body: failure } = await api.call<Failure>('PATCH', `/sessions/${id}/messages/${ids[0]}`, { body })
    expect({ body, status, path: failure.details?.[0]?.path }).toEqual({ body, status: 422, path: where })
  }
  await api.call('DELETE', `/sessions/${id}`)
  expect(await api.call('DELETE', `/sessions/${id}/messages/${ids[0]}`)).toMatchObject({ status: 410 })
  await Promise.all([running, ...waiting])
})

test('an abort is acknowledged at once also by a harness that hangs, which is ended; the next message is answered', async () => {
  const id = await open()
  const hanging = send(id, 'deaf')
  await runs(id, 'deaf')
  const since = performance.now()
  expect(await api.call('POST', `/sessions/${id}/abort`)).toMatchObject({ status: 200, body: { ok: true } })
  const tookMs = performance.now() - since
  expect(await hanging).toMatchObject(cancelled)
  // It was answered before the harness was ended, which takes five seconds.
  expect(performance.now() - since).toBeGreaterThan(4_500)
  expect(tookMs).toBeLessThan(4_500)
  expect(textOf((await send(id, 'say well')).body)).toBe('well')
}, 60_000)

test('an abort is acknowledged at once also when the sandbox does not answer, and is carried out when it does', async () => {
  const { id, running } = await busy()
  const [{ pid }] = (await Promise.all(
    [(await api.call<Session>('GET', `/sessions/${id}`)).body.task_arn ?? ''].map(
      async (name) => (await api.driver.inspect(name)).details,
    ),
  )) as [{ pid: number }]
  process.kill(pid, 'SIGSTOP')
  const since = performance.now()
  expect(await api.call('POST', `/sessions/${id}/abort`)).toMatchObject({ status: 200 })
  const tookMs = performance.now() - since
  await new Promise((resolve) => setTimeout(resolve, 6_000))
  process.kill(pid, 'SIGCONT')
  expect(await running).toMatchObject(cancelled)
  expect(tookMs).toBeLessThan(4_000)
  expect(textOf((await send(id, 'say well')).body)).toBe('well')
}, 60_000)
