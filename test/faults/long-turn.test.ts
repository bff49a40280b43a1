import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { Client, Connection } from '@temporalio/client'
import { replyTo } from './model.ts'
import { LONG_TURN_MS, SCALED, SHORTEST_MS } from './scaled-time.ts'
import { MASTER_KEY, type Stack, startStack } from './stack.ts'
import { createAgent, expectWholeLog, getSession, openSession, streamedText, turnsOf } from './world.ts'

/** All processes of the platform and of its clients live in a time in which two hours take `LONG_TURN_MS`. */
let stack: Stack
let agent: string
beforeAll(async () => {
  stack = await startStack({ env: { ...SCALED, WARM_POOL_SIZE: '0', SESSION_IDLE_TIMEOUT_MINUTES: '1' } })
  agent = await createAgent(stack)
}, 120_000)
afterAll(async () => stack?.[Symbol.asyncDispose](), 60_000)

const program = fileURLToPath(new URL('long-client.ts', import.meta.url))
const run = promisify(execFile)

const client = async (kind: string, sessionId: string, text = ''): Promise<{ text: string; tries: number }> => {
  const url = `${stack.api().url}/api/v1/managed_agents/sessions/${sessionId}`
  const env = { ...process.env, ...SCALED, KEY: MASTER_KEY }
  return JSON.parse((await run(process.execPath, [program, kind, url, text], { env })).stdout) as Awaited<ReturnType<typeof client>> // prettier-ignore
}

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
}, 240_000)
