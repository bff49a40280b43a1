import { expect, test } from '@jest/globals'
import { replyTo } from './model.ts'
import type { Stack } from './stack.ts'
import { until } from '../until.ts'
import { behindProxy, signalSandbox, streaming, turnsOver } from './turns.ts'
import { withStack } from './with-stack.ts'
import {
  createAgent,
  expectWholeLog,
  getSession,
  insist,
  type Message,
  openSession,
  say,
  textOf,
  times,
  turnsOf,
} from './world.ts'

/** What a client sends happens once, and what it takes back or puts first stays so, whoever dies. */

let stack: Stack
let agent: string
withStack({ apis: 2 }, async (started) => {
  stack = started
  agent = await createAgent(stack)
})

const open = async (): Promise<string> => (await openSession(stack, agent, { wait: true, api: 1 })).id
/** Sends over the first API, which may be killed meanwhile. */
const send = (id: string, text: string, key?: string) =>
  say(stack, id, text, key === undefined ? {} : { key }).catch((error: unknown) => error as Error)
const waiting = (id: string, count: number) =>
  until(`${count} messages wait`, 30_000, async () => {
    const { body } = await stack.http<{ id: string }[]>('GET', `/sessions/${id}/queue`, undefined, { api: 1 })
    return body.length === count ? body.map((message) => message.id) : null
  })
const repeated = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value)
const asked = (marker: string): number => stack.model.askedFor(marker).length

test('the API is killed after it has stored a message and before it has handed it on: it runs once, and its key answers', async () => {
  const id = await open()
  await stack.worker().kill('SIGKILL')
  await using proxy = await behindProxy(stack, id)
  proxy.hold()
  const lost = send(id, 'm-stored words=3', 'key-stored')
  await until('it is stored', 10_000, async () => (await turnsOf(stack, id)).length === 1)
  await stack.api().kill('SIGKILL')
  expect(Error.isError(await lost)).toBe(true)
  await proxy.undo()
  await Promise.all([stack.api().start(), stack.worker().start()])
  const again = await say(stack, id, 'm-stored words=3', { key: 'key-stored' })
  expect({ status: again.status, text: textOf(again.body) }).toEqual({
    status: 200,
    text: replyTo('m-stored words=3'),
  })
  expect(asked('m-stored')).toBe(1)
  expect((await turnsOf(stack, id)).length).toBe(1)
  await expectWholeLog(stack, id)
})

test('a message whose sandbox is killed is answered to its key as interrupted, by every API, and never run again unasked', async () => {
  const id = await open()
  const first = send(id, 'm-lost words=300 gap=50', 'key-lost')
  await streaming(stack, 'm-lost')
  await signalSandbox(stack, id, 'SIGKILL')
  const repeats = await times(6, (i) => say(stack, id, 'm-lost words=300 gap=50', { key: 'key-lost', api: i % 2 }))
  for (const reply of [await first, ...repeats])
    expect(reply).toMatchObject({ status: 409, body: { code: 'turn_interrupted' } })
  expect((await say(stack, id, 'm-asked words=2')).status).toBe(200)
  expect(asked('m-lost')).toBe(1)
  expect((await turnsOf(stack, id)).map(({ status }) => status)).toEqual(['interrupted', 'done'])
  expect(await getSession(stack, id)).toMatchObject({ attempt: 2 })
  await expectWholeLog(stack, id)
})

test('a message runs once however often it is repeated while API and worker are killed and come back', async () => {
  const id = await open()
  const text = 'm-insist words=60 gap=100'
  const clients = times(8, () =>
    insist<Message>(stack, 'POST', `/sessions/${id}/message`, { key: 'key-insist', body: { text } }),
  )
  await streaming(stack, 'm-insist')
  await stack.api().kill('SIGKILL')
  await stack.worker().kill('SIGKILL')
  await Promise.all([stack.api().start(), stack.worker().start()])
  await stack.api(1).kill('SIGKILL')
  await stack.api(1).start()
  for (const { status, body } of await clients)
    expect({ status, text: textOf(body) }).toEqual({ status: 200, text: replyTo(text) })
  expect(asked('m-insist')).toBe(1)
  expect((await turnsOf(stack, id)).length).toBe(1)
  await expectWholeLog(stack, id)
})

test('the API is killed before it could tell the sandbox to stop: the turn stops all the same, and what waited does not begin', async () => {
  const id = await open()
  const running = send(id, 'm-stop words=600 gap=100')
  await streaming(stack, 'm-stop')
  const behind = send(id, 'm-behind words=3')
  await waiting(id, 1)
  await using proxy = await behindProxy(stack, id)
  proxy.hold()
  const lost = stack.http('POST', `/sessions/${id}/abort`, undefined, { api: 1 }).catch(() => null)
  await until('it is written', 10_000, async () => {
    const [turn] = await stack.sql<{ at: Date | null }>(
      "select interrupt_requested_at at from turn where session_id = $1 and status = 'running'",
      [id],
    )
    return turn?.at ?? null
  })
  await stack.api(1).kill('SIGKILL')
  await lost
  await proxy.undo()
  await stack.api(1).start()
  for (const reply of [await running, await behind])
    expect(reply).toMatchObject({ status: 409, body: { code: 'turn_cancelled' } })
  expect(asked('m-behind')).toBe(0)
  const events = await expectWholeLog(stack, id)
  expect(events.filter(({ type }) => type === 'turn.interrupt_requested')).toHaveLength(1)
  expect(textOf((await say(stack, id, 'm-then words=2')).body)).toBe(replyTo('m-then words=2'))
})

test('a message sent now is next also when the worker is killed at that moment; nothing runs twice', async () => {
  const id = await open()
  void send(id, 'm-steered words=600 gap=100')
  await streaming(stack, 'm-steered')
  void send(id, 'm-later words=2')
  await waiting(id, 1)
  void send(id, 'm-now words=2')
  const [, now] = await waiting(id, 2)
  await stack.worker().kill('SIGKILL')
  const sent = await stack.http('POST', `/sessions/${id}/messages/${now}/send_now`)
  expect(sent).toMatchObject({ status: 200, body: { status: 'queued' } })
  await stack.worker().start()
  const turns = await turnsOver(stack, id)
  expect(turns.map(({ status }) => status)).toEqual(['cancelled', 'done', 'done'])
  expect(['m-steered', 'm-now', 'm-later'].map(asked)).toEqual([1, 1, 1])
  const [first, second] = [stack.model.askedFor('m-now')[0], stack.model.askedFor('m-later')[0]]
  expect(first!.at).toBeLessThan(second!.at)
  await expectWholeLog(stack, id)
})

test('what was changed or taken back while no worker runs stays so when one is back', async () => {
  const id = await open()
  void send(id, 'm-base words=20 gap=100')
  await streaming(stack, 'm-base')
  await stack.worker().kill('SIGKILL')
  void send(id, 'm-before words=2')
  await waiting(id, 1)
  const gone = send(id, 'm-deleted words=2')
  const [first, second] = await waiting(id, 2)
  expect(await stack.http('PATCH', `/sessions/${id}/messages/${first}`, { text: 'm-after words=2' })).toMatchObject({
    status: 200,
  })
  expect(await stack.http('DELETE', `/sessions/${id}/messages/${second}`)).toMatchObject({ status: 200 })
  await Promise.all([stack.api().kill('SIGKILL'), stack.api(1).kill('SIGKILL')])
  await gone
  await Promise.all([stack.api().start(), stack.api(1).start(), stack.worker().start()])
  const turns = await turnsOver(stack, id)
  expect(turns.map(({ status }) => status)).toEqual(['done', 'done', 'cancelled'])
  expect(['m-before', 'm-deleted', 'm-after'].map(asked)).toEqual([0, 0, 1])
  await expectWholeLog(stack, id)
})

test('a limit holds while everything dies: as many turns begin as are allowed', async () => {
  const { id } = await openSession(stack, agent, { wait: true, api: 1, body: { max_turns: 3 } })
  const clients = times(6, (i) =>
    insist<Message>(stack, 'POST', `/sessions/${id}/message`, {
      key: `key-limit-${i}`,
      body: { text: `m-limit-${i} words=20 gap=50` },
    }),
  )
  await until('one runs', 30_000, async () => (await turnsOf(stack, id)).some(({ status }) => status === 'running'))
  await Promise.all([stack.api().kill('SIGKILL'), stack.worker().kill('SIGKILL')])
  await Promise.all([stack.api().start(), stack.worker().start()])
  const answers = (await clients).map(({ status, body }) => [status, body.code ?? 'done'].join(' ')).toSorted()
  expect(answers).toEqual([...repeated(3, '200 done'), ...repeated(3, '409 limit_reached')])
  expect(stack.model.asked.filter(({ text }) => text.includes('m-limit')).length).toBe(3)
  const events = await expectWholeLog(stack, id)
  expect(events.filter(({ type }) => type === 'session.limit_reached')).toHaveLength(1)
})
