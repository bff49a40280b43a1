import { expect, test } from '@jest/globals'
import { Client, Connection } from '@temporalio/client'
import { type Got, runClient } from './client-process.ts'
import { replyTo } from './model.ts'
import { LONG_TURN_MS, SCALED, SHORTEST_MS } from './scaled-time.ts'
import { type Stack } from './stack.ts'
import { withStack } from './with-stack.ts'
import { createAgent, expectWholeLog, getSession, openSession, streamedText, turnsOf } from './world.ts'

/** All processes of the platform and of its clients live in a time in which two hours take `LONG_TURN_MS`. */
let stack: Stack
let agent: string
withStack({ env: { ...SCALED, SESSION_IDLE_TIMEOUT_MINUTES: '1' } }, async (started) => {
  stack = started
  agent = await createAgent(stack)
})

const client = (kind: Parameters<typeof runClient>[1], sessionId: string, text = ''): Promise<Got> =>
  runClient(stack, kind, { sessionId, text }, SCALED)

/** What Temporal was told about the activity that ran the turn. */
const activityOf = async (sessionId: string) => {
  const connection = await Connection.connect({ address: stack.temporalAddress })
  try {
    const handle = new Client({ connection, namespace: 'lap' }).workflow.getHandle(`session/${sessionId}`)
    const { events } = await handle.fetchHistory()
    const started = events?.find((event) => event.workflowExecutionStartedEventAttributes)
    const turn = events?.find((event) => event.activityTaskScheduledEventAttributes?.activityType?.name === 'runTurn')
    const begun = events?.find(({ activityTaskStartedEventAttributes: task }) =>
      task?.scheduledEventId?.eq(turn?.eventId ?? 0),
    )
    const { startToCloseTimeout, scheduleToCloseTimeout } = turn?.activityTaskScheduledEventAttributes ?? {}
    const { workflowRunTimeout, workflowExecutionTimeout } = started?.workflowExecutionStartedEventAttributes ?? {}
    return {
      attempt: begun?.activityTaskStartedEventAttributes?.attempt,
      limitsSeconds: [startToCloseTimeout, scheduleToCloseTimeout, workflowRunTimeout, workflowExecutionTimeout]
        .map((limit) => Number(limit?.seconds ?? 0))
        .filter((seconds) => seconds > 0),
    }
  } finally {
    await connection.close()
  }
}

const expectUndisturbed = async (sessionId: string, text: string, marker: string): Promise<void> => {
  expect(await turnsOf(stack, sessionId)).toMatchObject([{ status: 'done' }])
  expect(stack.model.askedFor(marker).map(({ outcome }) => outcome)).toEqual(['finished'])
  expect(streamedText(await expectWholeLog(stack, sessionId))).toBe(replyTo(text))
  expect(await getSession(stack, sessionId)).toMatchObject({ status: 'ready', attempt: 1 })
  const { attempt, limitsSeconds } = await activityOf(sessionId)
  expect(attempt).toBe(1)
  for (const seconds of limitsSeconds) expect(seconds).toBeGreaterThan(24 * 3_600)
}

test('a turn whose model is silent for two hours, before its first word or after it, is answered to every client that waits', async () => {
  expect(LONG_TURN_MS).toBeGreaterThan(60_000)
  const [one, two, three] = await Promise.all([1, 2, 3].map(() => openSession(stack, agent, { wait: true })))
  const thinks = `m-thinks think=${LONG_TURN_MS}`
  const pauses = `m-pauses silence=${LONG_TURN_MS}`
  const again = `m-again think=${LONG_TURN_MS}`
  const [blocking, events, streamed, repeated] = await Promise.all([
    client('blocking', one!.id, thinks),
    client('events', one!.id),
    client('streamed', two!.id, pauses),
    client('repeated', three!.id, again),
  ])
  expect({ blocking, events }).toEqual({
    blocking: { text: replyTo(thinks), tries: 1 },
    events: { text: replyTo(thinks), tries: 1 },
  })
  expect(streamed).toEqual({ text: replyTo(pauses), tries: 1 })
  // The time really is another one: what `fetch` gives up after by itself has passed, three times.
  expect(repeated.text).toBe(replyTo(again))
  expect(repeated.tries).toBeGreaterThanOrEqual(Math.floor(LONG_TURN_MS / SHORTEST_MS))
  await expectUndisturbed(one!.id, thinks, 'm-thinks')
  await expectUndisturbed(two!.id, pauses, 'm-pauses')
  await expectUndisturbed(three!.id, again, 'm-again')
})
