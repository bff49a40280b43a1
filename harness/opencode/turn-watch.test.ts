import { expect, test } from '@jest/globals'
import { createTurnWatch } from './turn-watch.ts'

const sessionID = 'ses_1'
const idle = { type: 'session.idle', properties: { sessionID } }
const message = (id: string, completed?: number) => ({
  type: 'message.updated',
  properties: { sessionID, info: { id, time: completed === undefined ? {} : { completed } } },
})
const isPending = async (promise: Promise<unknown>): Promise<boolean> =>
  (await Promise.race([promise, new Promise((resolve) => setTimeout(resolve, 20, 'pending'))])) === 'pending'

test('a turn is told when its message is completed and the conversation idle after that, not before', async () => {
  const watch = createTurnWatch(sessionID, () => undefined)
  watch.hear(idle)
  watch.hear(message('msg_1'))
  watch.hear(message('msg_0', 1))
  watch.hear(idle)
  const told = watch.told('msg_1')
  expect(await isPending(told)).toBe(true)
  watch.hear(message('msg_1', 2))
  expect(await isPending(told)).toBe(true)
  watch.hear({ ...idle, properties: { sessionID: 'ses_2' } })
  expect(await isPending(told)).toBe(true)
  watch.hear(idle)
  expect(await told).toBe(true)
})

test('a bus that has lost the end of a turn does not hold it for ever', async () => {
  expect(await createTurnWatch(sessionID, () => undefined).told('msg_1')).toBe(false)
})

test('a gateway that fails again and again is given up, and why is said', () => {
  let givenUp = 0
  const watch = createTurnWatch(sessionID, () => void givenUp++)
  const retry = (attempt: number) => ({
    type: 'session.status',
    properties: { sessionID, status: { type: 'retry', attempt, message: 'overloaded' } },
  })
  for (const attempt of [1, 2, 3, 4]) watch.hear(retry(attempt))
  expect([givenUp, watch.error()]).toEqual([0, null])
  watch.hear(retry(5))
  expect([givenUp, watch.error()]).toEqual([1, 'given up after 4 repetitions: overloaded'])
  watch.hear({ type: 'session.error', properties: { sessionID, error: { name: 'MessageAbortedError' } } })
  expect(watch.error()).toContain('overloaded')
})
