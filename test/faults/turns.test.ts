import { expect, test } from '@jest/globals'
import { replyTo } from './model.ts'
import { supervisorLostMs } from '../../domain/limits.ts'
import { childrenOf } from './processes.ts'
import type { Stack } from './stack.ts'
import { until } from '../until.ts'
import { behindProxy, streaming } from './turns.ts'
import { withStack } from './with-stack.ts'
import {
  createAgent,
  expectWholeLog,
  getSession,
  leavesNothing,
  openSession,
  sandboxesOf,
  say,
  streamedText,
  supervisorPid,
  textOf,
  times,
  turnsOf,
  workerOfTurn,
} from './world.ts'

let stack: Stack
let agent: string
withStack({ workers: 2 }, async (started) => {
  stack = started
  agent = await createAgent(stack)
})

const expectOneTurn = async (sessionId: string, text: string, marker: string): Promise<void> => {
  expect(await turnsOf(stack, sessionId)).toMatchObject([{ status: 'done' }])
  expect(stack.model.askedFor(marker).map(({ outcome }) => outcome)).toEqual(['finished'])
  const events = await expectWholeLog(stack, sessionId)
  expect(streamedText(events)).toBe(replyTo(text))
}

test('a turn ends once, with a whole log, and the model is asked once, when every worker is killed and one comes back', async () => {
  const session = await openSession(stack, agent, { wait: true })
  const text = 'm-worker words=80 gap=100'
  const reply = say(stack, session.id, text)
  await streaming(stack, 'm-worker', 15)
  await times(2, (i) => stack.worker(i).kill('SIGKILL'))
  await stack.worker(0).start()
  const { status, body } = await reply
  expect({ status, text: textOf(body) }).toEqual({ status: 200, text: replyTo(text) })
  await expectOneTurn(session.id, text, 'm-worker')
  // The next turn is in order.
  expect(textOf((await say(stack, session.id, 'm-next words=2')).body)).toBe(replyTo('m-next words=2'))
  await expectWholeLog(stack, session.id)
})

test('a turn whose worker is killed goes on with the other worker', async () => {
  await stack.worker(1).start()
  const session = await openSession(stack, agent, { wait: true })
  const text = 'm-two words=80 gap=100'
  const reply = say(stack, session.id, text)
  await streaming(stack, 'm-two', 15)
  const worker = await until('its worker is known', 10_000, () =>
    workerOfTurn(stack, session.id, [stack.worker(0), stack.worker(1)]),
  )
  await worker.kill('SIGKILL')
  expect(textOf((await reply).body)).toBe(replyTo(text))
  await expectOneTurn(session.id, text, 'm-two')
  await worker.start()
})

test('a session whose supervisor is killed during a turn moves; the turn is interrupted, not run again, and the conversation goes on', async () => {
  const session = await openSession(stack, agent, { wait: true })
  expect(textOf((await say(stack, session.id, 'm-before words=2')).body)).toBe(replyTo('m-before words=2'))
  const interrupted = say(stack, session.id, 'm-lost words=200 gap=50')
  await streaming(stack, 'm-lost', 5)
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
})

test('a turn whose harness is silent for long, and whose journal is cut off then, ends where it began', async () => {
  const session = await openSession(stack, agent, { wait: true })
  await using proxy = await behindProxy(stack, session.id)
  const text = 'm-silent words=10 silence=18000'
  const reply = say(stack, session.id, text)
  await streaming(stack, 'm-silent', 1)
  // Longer than a sandbox may be out of reach: to be silent is not to be gone.
  await new Promise((resolve) => setTimeout(resolve, supervisorLostMs + 1_000))
  proxy.cutAll()
  expect(proxy.cuts).toBeGreaterThan(0)
  const { status, body } = await reply
  expect({ status, text: textOf(body) }).toEqual({ status: 200, text: replyTo(text) })
  await expectOneTurn(session.id, text, 'm-silent')
  expect(await getSession(stack, session.id)).toMatchObject({ status: 'ready', attempt: 1 })
})

test('a turn sent with a key and repeated after the API was killed runs once', async () => {
  const session = await openSession(stack, agent, { wait: true })
  const text = 'm-key words=30 gap=100'
  const first = say(stack, session.id, text, { key: 'key-1' }).catch((error: unknown) => error)
  await streaming(stack, 'm-key', 5)
  await stack.api().kill('SIGKILL')
  expect(Error.isError(await first)).toBe(true)
  await stack.api().start()
  const again = await say(stack, session.id, text, { key: 'key-1' })
  expect({ status: again.status, text: textOf(again.body) }).toEqual({ status: 200, text: replyTo(text) })
  expect(stack.model.askedFor('m-key').length).toBe(1)
  expect((await turnsOf(stack, session.id)).length).toBe(1)
  await expectWholeLog(stack, session.id)
})

test('a turn whose harness is killed fails with the reason; the same sandbox starts it again and knows the conversation', async () => {
  const opencode = await createAgent(stack, { harness_id: 'opencode' })
  const session = await openSession(stack, opencode, { wait: true })
  expect(textOf((await say(stack, session.id, 'm-first words=3')).body)).toBe(replyTo('m-first words=3'))
  const killed = say(stack, session.id, 'm-killed words=200 gap=50')
  await streaming(stack, 'm-killed', 5)
  const [sandbox] = await sandboxesOf(stack, session.id)
  const [harness] = childrenOf(supervisorPid(stack, sandbox?.name ?? ''))
  process.kill(harness ?? 0, 'SIGKILL')

  const { status, body } = await killed
  expect({ status, body }).toMatchObject({ status: 502, body: { code: 'harness_exited' } })
  const after = await say(stack, session.id, 'm-again words=3')
  expect({ status: after.status, text: textOf(after.body) }).toEqual({ status: 200, text: replyTo('m-again words=3') })
  const asked = stack.model.askedFor('m-again').at(-1)
  expect(asked?.conversation.map(({ text }) => text).join('\n')).toContain(replyTo('m-first words=3').trim())

  expect((await turnsOf(stack, session.id)).map((turn) => turn.status)).toEqual(['done', 'failed', 'done'])
  expect(await getSession(stack, session.id)).toMatchObject({ status: 'ready', attempt: 1 })
  const events = await expectWholeLog(stack, session.id)
  expect(events.filter(({ type }) => type === 'harness.exited')).toMatchObject([{ data: { signal: 'SIGKILL' } }])
  expect(events.filter(({ type }) => type === 'harness.restarted').length).toBe(1)
})
