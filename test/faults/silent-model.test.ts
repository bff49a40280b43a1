import { expect, test } from '@jest/globals'
import { runClient } from './client-process.ts'
import { replyTo } from './model.ts'
import { type Stack } from './stack.ts'
import { withStack } from './with-stack.ts'
import { createAgent, expectWholeLog, getSession, openSession, turnsOf } from './world.ts'

/**
 * In real time, because a harness that is no Node program has no other: 300 s is what Node, undici and Bun give up after by themselves, for the first word of an answer
 * and between two of them.
 */
const SILENCE_MS = 315_000

let stack: Stack
withStack({}, (started) => {
  stack = started
})

test('opencode waits for a model that is silent for more than five minutes, before its first word or after it', async () => {
  const agent = await createAgent(stack, { harness_id: 'opencode' })
  const texts = [`m-thinks think=${SILENCE_MS}`, `m-pauses silence=${SILENCE_MS}`]
  const turns = texts.map(async (text) => {
    const { id } = await openSession(stack, agent, { wait: true })
    expect(await runClient(stack, 'blocking', { sessionId: id, text })).toEqual({ text: replyTo(text), tries: 1 })
    expect(await turnsOf(stack, id)).toMatchObject([{ status: 'done' }])
    expect(await getSession(stack, id)).toMatchObject({ status: 'ready', attempt: 1 })
    await expectWholeLog(stack, id)
  })
  await Promise.all(turns)
  // Requests for a title have the text in them, too; none was sent a second time.
  for (const marker of ['m-thinks', 'm-pauses'])
    expect(new Set(stack.model.askedFor(marker).map(({ outcome }) => outcome))).toEqual(new Set(['finished']))
}, 480_000)
