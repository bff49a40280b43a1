import { expect, test } from '@jest/globals'
import { replyTo } from './model.ts'
import type { Reply, Stack } from './stack.ts'
import { until } from '../until.ts'
import { behindProxy, signalSandbox, turnsOver } from './turns.ts'
import { withStack } from './with-stack.ts'
import { createAgent, expectWholeLog, getSession, type Message, openSession, say, textOf, turnsOf } from './world.ts'

/** A harness asks, a person thinks, and meanwhile something dies. */

let stack: Stack
let agent: string
withStack({ apis: 2 }, async (started) => {
  stack = started
  agent = await createAgent(stack, { permissions: 'ask' })
})

type Permission = { id: string; status: string; decision: string | null; delivered_at: string | null }
const permissions = async (session: string, api = 0): Promise<Permission[]> =>
  (await stack.http<Permission[]>('GET', `/sessions/${session}/permissions`, undefined, { api })).body
const answer = (session: string, id: string, decision: string, api = 0) =>
  stack.http<Permission & { code?: string }>('POST', `/sessions/${session}/permissions/${id}`, { decision }, { api })

/** A session whose harness waits for an answer. The message is sent to the first API, and its reply waited for there. */
const asking = async (marker: string) => {
  const session = await openSession(stack, agent, { wait: true, api: 1 })
  const text = `ask execute ${marker}-rm\n${marker} words=3`
  const reply: Promise<Reply<Message> | Error> = say(stack, session.id, text, { key: marker }).catch(
    (error: unknown) => error as Error,
  )
  const permission = await until('the harness asks', 30_000, async () => (await permissions(session.id, 1))[0])
  return { id: session.id, permission: permission.id, text, marker, reply }
}
type Asking = Awaited<ReturnType<typeof asking>>

/** The harness heard that answer, once, and went on with it; the model was asked once. */
const expectHeard = async ({ id, text, marker }: Asking, decision: string): Promise<void> => {
  await turnsOver(stack, id)
  const [turn] = await turnsOf(stack, id)
  expect({ status: turn?.status, text: textOf(turn?.reply ?? null) }).toEqual({
    status: 'done',
    text: `${decision}: ${marker}-rm\n${replyTo(text)}`,
  })
  expect(stack.model.askedFor(marker).length).toBe(1)
  const events = await expectWholeLog(stack, id)
  const told = events.filter(({ type }) => type.startsWith('permission.')).map(({ type }) => type)
  expect(told).toEqual(['permission.asked', decision === 'expired' ? 'permission.expired' : 'permission.replied'])
  expect(await permissions(id, 1)).toMatchObject([{ delivered_at: expect.any(String) }])
  expect(await getSession1(id)).toMatchObject({ status: 'ready', attempt: 1, needs_input: false })
}
const getSession1 = async (id: string) =>
  (await stack.http<{ status: string; needs_input: boolean }>('GET', `/sessions/${id}`, undefined, { api: 1 })).body

test('the worker is killed while a person thinks: the answer reaches the harness, and the turn ends with the next worker', async () => {
  const asked = await asking('m-worker')
  await stack.worker().kill('SIGKILL')
  expect(await getSession1(asked.id)).toMatchObject({ needs_input: true })
  expect(await answer(asked.id, asked.permission, 'allow')).toMatchObject({ status: 200 })
  await stack.worker().start()
  await expectHeard(asked, 'allow')
})

test('the API is killed between writing the answer and telling the sandbox: the worker tells it, once', async () => {
  const asked = await asking('m-api')
  await using proxy = await behindProxy(stack, asked.id)
  proxy.hold()
  const lost = answer(asked.id, asked.permission, 'deny', 1).catch(() => null)
  await until('the answer is written', 10_000, async () => (await permissions(asked.id))[0]?.status === 'denied')
  await stack.api(1).kill('SIGKILL')
  await lost
  await proxy.undo()
  await stack.api(1).start()
  await expectHeard(asked, 'deny')
  // The person repeats the answer: nothing more comes of it.
  expect(await answer(asked.id, asked.permission, 'deny', 1)).toMatchObject({ status: 200 })
  expect(await answer(asked.id, asked.permission, 'allow')).toMatchObject({
    status: 409,
    body: { code: 'permission_decided' },
  })
})

test('API and worker are killed, and everything waits for them', async () => {
  const asked = await asking('m-both')
  await Promise.all([stack.api().kill('SIGKILL'), stack.api(1).kill('SIGKILL'), stack.worker().kill('SIGKILL')])
  await Promise.all([stack.api().start(), stack.api(1).start(), stack.worker().start()])
  expect(await getSession1(asked.id)).toMatchObject({ needs_input: true })
  expect(await answer(asked.id, asked.permission, 'allow')).toMatchObject({ status: 200 })
  await expectHeard(asked, 'allow')
  expect(Error.isError(await asked.reply)).toBe(true)
  // Who sent the message asks again with its key.
  const again = await say(stack, asked.id, asked.text, { key: asked.marker })
  expect(textOf(again.body)).toBe(`allow: m-both-rm\n${replyTo(asked.text)}`)
  expect(stack.model.askedFor('m-both').length).toBe(1)
})

test('Temporal is stopped while a person thinks: the answer is heard at once, and the turn ends when it is back', async () => {
  const asked = await asking('m-temporal')
  await stack.temporal.stop()
  expect(await answer(asked.id, asked.permission, 'allow')).toMatchObject({ status: 200 })
  await until('the model is asked', 10_000, () => stack.model.askedFor('m-temporal').length === 1)
  await stack.temporal.start()
  await expectHeard(asked, 'allow')
})

test('Postgres is killed while a person thinks', async () => {
  const asked = await asking('m-postgres')
  await stack.postgres.kill()
  expect(await answer(asked.id, asked.permission, 'allow')).toMatchObject({ status: 503 })
  await stack.postgres.start()
  const answered = await until('it is answered', 30_000, async () => {
    const reply = await answer(asked.id, asked.permission, 'allow')
    return reply.status === 503 ? null : reply
  })
  expect(answered.status).toBe(200)
  await expectHeard(asked, 'allow')
})

test('the deadline passes while no worker runs: an answer is too late, and the harness hears no when a worker is back', async () => {
  const asked = await asking('m-late')
  await stack.worker().kill('SIGKILL')
  await stack.sql("update permission set expires_at = now() - interval '1 second' where id = $1", [asked.permission])
  expect(await answer(asked.id, asked.permission, 'allow')).toMatchObject({
    status: 410,
    body: { code: 'permission_expired' },
  })
  await stack.worker().start()
  await turnsOver(stack, asked.id)
  expect(textOf((await turnsOf(stack, asked.id))[0]?.reply ?? null)).toBe(`deny: m-late-rm\n${replyTo(asked.text)}`)
  const events = await expectWholeLog(stack, asked.id)
  expect(
    events.filter(({ type }) => type.startsWith('permission.')).map(({ type, data }) => [type, data['reason']]),
  ).toEqual([
    ['permission.asked', undefined],
    ['permission.expired', 'deadline'],
  ])
})

test('the sandbox is killed while a person thinks: the turn is interrupted, the question is over, and nothing is repeated', async () => {
  const asked = await asking('m-sandbox')
  await signalSandbox(stack, asked.id, 'SIGKILL')
  expect(await asked.reply).toMatchObject({ status: 409, body: { code: 'turn_interrupted' } })
  expect(await answer(asked.id, asked.permission, 'allow')).toMatchObject({
    status: 410,
    body: { code: 'permission_over' },
  })
  const again = await say(stack, asked.id, asked.text, { key: asked.marker })
  expect(again).toMatchObject({ status: 409, body: { code: 'turn_interrupted' } })
  expect(stack.model.askedFor('m-sandbox').length).toBe(0)
  expect(await permissions(asked.id)).toMatchObject([{ status: 'cancelled', decision: null }])
  const events = await expectWholeLog(stack, asked.id)
  expect(events.filter(({ type }) => /^(permission|turn\.finished)/.test(type)).map(({ type }) => type)).toEqual([
    'permission.asked',
    'permission.expired',
    'turn.finished',
  ])
  expect((await say(stack, asked.id, 'm-after words=2')).status).toBe(200)
  expect(await getSession(stack, asked.id)).toMatchObject({ status: 'ready', attempt: 2 })
})

test('a session does not end of idleness while its harness waits for a person; it does when nobody waits any more', async () => {
  const asked = await asking('m-idle')
  await stack.sql('update session set idle_timeout_ms = 500 where id = $1', [asked.id])
  await new Promise((resolve) => setTimeout(resolve, 5_000))
  expect(await getSession1(asked.id)).toMatchObject({ status: 'ready', needs_input: true })
  expect(await answer(asked.id, asked.permission, 'allow')).toMatchObject({ status: 200 })
  await turnsOver(stack, asked.id)
  await until('it ends', 60_000, async () => (await getSession(stack, asked.id)).end_reason === 'idle_timeout')
})
