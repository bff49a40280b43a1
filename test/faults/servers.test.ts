import { expect, test } from '@jest/globals'
import { replyTo } from './model.ts'
import type { Stack } from './stack.ts'
import { until } from '../until.ts'
import { streaming } from './turns.ts'
import { withStack } from './with-stack.ts'
import {
  createAgent,
  expectWholeLog,
  getSession,
  openSession,
  poolHas,
  say,
  sandboxesOf,
  streamedText,
  textOf,
  turnsOf,
  warmPool,
  workflowStatus,
} from './world.ts'

let stack: Stack
let agent: string
withStack({ pool: 2 }, async (started) => {
  stack = started
  agent = await createAgent(stack)
  await warmPool(stack, agent, 2)
})

test('with Temporal stopped a warm create is ready at once; its workflow appears and its turn ends when Temporal is back', async () => {
  await stack.temporal.stop()
  const at = Date.now()
  const session = await openSession(stack, agent)
  expect(session).toMatchObject({ status: 'ready', spawn_mode: 'warm' })
  expect(Date.now() - at).toBeLessThan(2_000)
  const reply = say(stack, session.id, 'm-early words=4')
  // The turn itself is given to the sandbox by the API.
  await until('the model is asked', 10_000, () => stack.model.askedFor('m-early').length === 1)
  await stack.temporal.start()
  await until(
    'the workflow runs',
    30_000,
    async () => (await workflowStatus(stack, `session/${session.id}`)) === 'RUNNING',
  )
  expect(textOf((await reply).body)).toBe(replyTo('m-early words=4'))
  expect(stack.model.askedFor('m-early').length).toBe(1)
  expect(textOf((await say(stack, session.id, 'm-late words=4')).body)).toBe(replyTo('m-late words=4'))
  await expectWholeLog(stack, session.id)
  await poolHas(stack, 2)
})

const faults: [string, () => Promise<void>][] = [
  ['stopped', () => stack.postgres.stop()],
  ['killed', () => stack.postgres.kill()],
]

test.each(faults)(
  'when Postgres is %s during a turn and started again, everything recovers by itself',
  async (how, fault) => {
    const marker = `m-${how}`
    const session = await openSession(stack, agent, { wait: true })
    const text = `${marker} words=100 gap=50`
    const reply = say(stack, session.id, text).catch((error: unknown) => error)
    await streaming(stack, marker, 11)
    await fault()
    const down = await stack.http('POST', `/agents/${agent}/session`, {})
    expect(down).toMatchObject({ status: 503, body: { code: 'unavailable' } })
    await stack.postgres.start()

    await until('the turn is done', 60_000, async () => (await turnsOf(stack, session.id))[0]?.status === 'done')
    await reply
    const events = await expectWholeLog(stack, session.id)
    expect(streamedText(events)).toBe(replyTo(text))
    expect(stack.model.askedFor(marker).length).toBe(1)
    expect(await getSession(stack, session.id)).toMatchObject({ status: 'ready', attempt: 1 })
    expect((await sandboxesOf(stack, session.id)).length).toBe(1)

    expect(textOf((await say(stack, session.id, `${marker}-next words=2`)).body)).toBe(
      replyTo(`${marker}-next words=2`),
    )
    await poolHas(stack, 2)
    const fresh = await openSession(stack, agent)
    expect(fresh).toMatchObject({ status: 'ready', spawn_mode: 'warm' })
  },
)
