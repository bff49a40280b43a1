import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { replyTo } from './model.ts'
import { type Stack, startStack, until } from './stack.ts'
import {
  createAgent,
  eventsOf,
  expectWholeLog,
  getSession,
  leavesNothing,
  openSession,
  sandboxesOf,
  say,
  streamedText,
  supervisorPid,
  textOf,
  turnsOf,
} from './world.ts'

let stack: Stack
let agent: string
beforeAll(async () => {
  stack = await startStack({ env: { WARM_POOL_SIZE: '0' } })
  agent = await createAgent(stack)
}, 90_000)
afterAll(async () => stack?.[Symbol.asyncDispose](), 60_000)

const streaming = (marker: string, words: number): Promise<true> =>
  until(`the model streams ${marker}`, 20_000, () => (stack.model.askedFor(marker)[0]?.sent ?? 0) >= words || null)

test('a turn whose worker is killed ends once, with a whole log, and the model was asked once', async () => {
  const session = await openSession(stack, agent, { wait: true })
  const text = 'm-worker words=100 gap=100'
  const reply = say(stack, session.id, text)
  await streaming('m-worker', 15)
  await stack.worker().kill('SIGKILL')
  await stack.worker().start()
  const { status, body } = await reply
  expect({ status, text: textOf(body) }).toEqual({ status: 200, text: replyTo(text) })

  expect(await turnsOf(stack, session.id)).toMatchObject([{ status: 'done' }])
  expect(stack.model.askedFor('m-worker').map(({ outcome }) => outcome)).toEqual(['finished'])
  const events = await expectWholeLog(stack, session.id)
  expect(streamedText(events)).toBe(replyTo(text))
  // The next turn is in order.
  expect(textOf((await say(stack, session.id, 'm-next words=2')).body)).toBe(replyTo('m-next words=2'))
  await expectWholeLog(stack, session.id)
}, 120_000)

test('a session whose supervisor is killed during a turn moves; the turn is interrupted, not run again, and the conversation goes on', async () => {
  const session = await openSession(stack, agent, { wait: true })
  expect(textOf((await say(stack, session.id, 'm-before words=2')).body)).toBe(replyTo('m-before words=2'))
  const interrupted = say(stack, session.id, 'm-lost words=200 gap=50')
  await streaming('m-lost', 5)
  const [first] = await sandboxesOf(stack, session.id)
  process.kill(supervisorPid(stack, first?.name ?? ''), 'SIGKILL')

  const { status, body } = await interrupted
  expect({ status, body }).toMatchObject({ status: 409, body: { code: 'turn_interrupted' } })
  const after = await say(stack, session.id, 'm-after words=3')
  expect({ status: after.status, text: textOf(after.body) }).toEqual({ status: 200, text: replyTo('m-after words=3') })

  expect(await getSession(stack, session.id)).toMatchObject({ status: 'ready', attempt: 2 })
  expect((await turnsOf(stack, session.id)).map((turn) => turn.status)).toEqual(['done', 'interrupted', 'done'])
  expect(stack.model.askedFor('m-lost').length).toBe(1)
  const [asked] = stack.model.askedFor('m-after')
  expect(asked?.conversation.map(({ text }) => text).join('\n')).toContain(replyTo('m-before words=2').trim())
  const events = await expectWholeLog(stack, session.id)
  const moved = events.filter(({ type }) => type === 'sandbox_moved')
  expect(moved).toMatchObject([{ data: { attempt: 2 } }])
  const sandboxes = await sandboxesOf(stack, session.id)
  expect(sandboxes.length).toBe(2)
  expect(new Set(sandboxes.map(({ id }) => id)).size).toBe(2)
  await leavesNothing(stack, [first?.name ?? ''])
}, 120_000)

test('a turn sent with a key and repeated after the API was killed runs once', async () => {
  const session = await openSession(stack, agent, { wait: true })
  const text = 'm-key words=30 gap=100'
  const first = say(stack, session.id, text, { key: 'key-1' }).catch((error: unknown) => error)
  await streaming('m-key', 5)
  await stack.api().kill('SIGKILL')
  expect(Error.isError(await first)).toBe(true)
  await stack.api().start()
  const again = await say(stack, session.id, text, { key: 'key-1' })
  expect({ status: again.status, text: textOf(again.body) }).toEqual({ status: 200, text: replyTo(text) })
  expect(stack.model.askedFor('m-key').length).toBe(1)
  expect((await turnsOf(stack, session.id)).length).toBe(1)
  expect((await eventsOf(stack, session.id)).length).toBe((await expectWholeLog(stack, session.id)).length)
}, 90_000)
