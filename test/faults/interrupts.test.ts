import { expect, test } from '@jest/globals'
import { replyTo } from './model.ts'
import type { Stack } from './stack.ts'
import { until } from '../until.ts'
import { signalSandbox, streaming, turnsOver } from './turns.ts'
import { withStack } from './with-stack.ts'
import { createAgent, eventsOf, expectWholeLog, getSession, openSession, say, textOf } from './world.ts'

/** An interrupt is acknowledged while parts of the platform do not answer, and is then carried out once. */

let stack: Stack
let agent: string
withStack({}, async (started) => {
  stack = started
  agent = await createAgent(stack)
})

const abort = (id: string) => stack.http('POST', `/sessions/${id}/abort`)
const acknowledged = { status: 200, body: { ok: true } }
const cancelled = { status: 409, body: { code: 'turn_cancelled' } }

/** A session amid a turn, with one message that waits behind it. */
const busy = async (marker: string) => {
  const { id } = await openSession(stack, agent, { wait: true })
  const running = say(stack, id, `${marker} words=3000 gap=100`)
  await streaming(stack, marker)
  const behind = say(stack, id, `${marker}-behind words=2`)
  await until(
    'one waits',
    30_000,
    async () => (await stack.http<unknown[]>('GET', `/sessions/${id}/queue`)).body.length === 1,
  )
  return { id, marker, running, behind }
}
type Busy = Awaited<ReturnType<typeof busy>>

const isCut = ({ marker }: Busy): Promise<boolean> =>
  until('the model is hung up on', 60_000, () => stack.model.askedFor(marker)[0]?.outcome === 'cut')

/** Both were told that they are cancelled, what waited never began, and the session goes on. */
const expectCancelled = async ({ id, marker, running, behind }: Busy): Promise<void> => {
  for (const reply of [await running, await behind]) expect(reply).toMatchObject(cancelled)
  expect((await turnsOver(stack, id)).map(({ status }) => status)).toEqual(['cancelled', 'cancelled'])
  expect(stack.model.askedFor(`${marker}-behind`)).toEqual([])
  const text = `${marker}-next words=2`
  expect(textOf((await say(stack, id, text)).body)).toBe(replyTo(text))
  const events = await expectWholeLog(stack, id)
  expect(events.filter(({ type }) => type === 'turn.interrupt_requested')).toHaveLength(1)
  expect(await getSession(stack, id)).toMatchObject({ status: 'ready', attempt: 1 })
}

test('the sandbox does not answer: an interrupt is acknowledged, and carried out when it does', async () => {
  const turn = await busy('m-frozen')
  await signalSandbox(stack, turn.id, 'SIGSTOP')
  const first = await abort(turn.id)
  await signalSandbox(stack, turn.id, 'SIGCONT')
  expect(first).toMatchObject(acknowledged)
  await isCut(turn)
  await expectCancelled(turn)
})

test('the sandbox never answers again: an interrupt is acknowledged, the turn is over when the sandbox is lost, and the session goes on in another one', async () => {
  const turn = await busy('m-dead')
  await signalSandbox(stack, turn.id, 'SIGSTOP')
  expect(await abort(turn.id)).toMatchObject(acknowledged)
  expect(await turn.behind).toMatchObject(cancelled)
  const over = await turnsOver(stack, turn.id)
  expect(over.map(({ status }) => status)).toEqual(['interrupted', 'cancelled'])
  expect(await turn.running).toMatchObject({ status: 409, body: { code: 'turn_interrupted' } })
  expect(textOf((await say(stack, turn.id, 'm-dead-next words=2')).body)).toBe(replyTo('m-dead-next words=2'))
  expect(await getSession(stack, turn.id)).toMatchObject({ status: 'ready', attempt: 2 })
  await expectWholeLog(stack, turn.id)
})

const faults: [string, string, () => Promise<void>, () => Promise<void>][] = [
  ['no worker runs', 'm-worker', () => stack.worker().kill('SIGKILL'), () => stack.worker().start()],
  ['Temporal is stopped', 'm-temporal', () => stack.temporal.stop(), () => stack.temporal.start()],
]

test.each(faults)(
  '%s: an interrupt is acknowledged, and the harness stops meanwhile',
  async (_, marker, fault, undo) => {
    const turn = await busy(marker)
    await fault()
    expect(await abort(turn.id)).toMatchObject(acknowledged)
    await isCut(turn)
    expect(await turn.behind).toMatchObject(cancelled)
    expect(await abort(turn.id)).toMatchObject(acknowledged)
    await undo()
    await expectCancelled(turn)
  },
)

test('Postgres is killed: an interrupt is not acknowledged, nothing stops, and sent again it is carried out', async () => {
  const turn = await busy('m-postgres')
  await stack.postgres.kill()
  expect(await abort(turn.id)).toMatchObject({ status: 503, body: { code: 'unavailable' } })
  expect(stack.model.askedFor(turn.marker)[0]?.outcome).toBe('streaming')
  await stack.postgres.start()
  await until('it is acknowledged', 60_000, async () => (await abort(turn.id)).status === 200)
  await isCut(turn)
  await turnsOver(stack, turn.id)
  expect((await eventsOf(stack, turn.id)).filter(({ type }) => type === 'turn.interrupt_requested')).toHaveLength(1)
  await expectCancelled(turn)
})
