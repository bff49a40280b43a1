import { expect, test } from '@jest/globals'
import { replyTo } from './model.ts'
import { startProxy } from './proxy.ts'
import { read, type Reader } from './reader.ts'
import type { Stack } from './stack.ts'
import { until } from '../until.ts'
import { withStack } from './with-stack.ts'
import {
  createAgent,
  eventsOf,
  expectWholeLog,
  openSession,
  say,
  streamedText,
  times,
  turnsOf,
  workflowRests,
} from './world.ts'

const CUTS = 1_000
/** The turn goes on until the last cut; `FAULTS_TURN_SECONDS=300` spreads them over five minutes. */
const TURN_MS = Number(process.env['FAULTS_TURN_SECONDS'] ?? 60) * 1_000
/** So many that some are always there to be cut: each is away for three seconds after it was. */
const READERS = 50
const LATE_READERS = 20

let stack: Stack
let agent: string
withStack({ apis: 2 }, async (started) => {
  stack = started
  agent = await createAgent(stack)
})

/** Every reader gets to the end of the log and has had each event of it once, in order, from the first or from the snapshot that it began with. */
const allHeardAll = async (sessionId: string, readers: Reader[]): Promise<void> => {
  // Its checkpoint is an entry of the log, too.
  await until('nothing more happens', 60_000, () => workflowRests(stack, `session/${sessionId}`))
  const log = (await eventsOf(stack, sessionId)).map(({ seq }) => seq)
  await until('every reader has the last event', 60_000, () =>
    readers.every(({ heard }) => (heard.at(-1) ?? 0) >= log.length),
  )
  for (const { heard } of readers) expect(heard).toEqual(log.slice((heard[0] ?? 0) - 1))
}

const portOf = (api: number): number => Number(new URL(stack.api(api).url).port)
const isDone = (sessionId: string) =>
  until('the turn is done', 60_000, async () => (await turnsOf(stack, sessionId))[0]?.status === 'done')

test('a thousand cuts during one turn, read over two APIs: nothing is lost and nothing comes twice, for who joins late, too', async () => {
  const { id } = await openSession(stack, agent, { wait: true })
  await using proxy = await startProxy(portOf(0), portOf(1))
  const url = `http://127.0.0.1:${proxy.port}/api/v1/managed_agents/sessions/${id}/events?follow=1`
  const readers = Array.from({ length: READERS }, () => read(url))
  try {
    const sent = say(stack, id, 'm-cut words=1000000 gap=100').catch((error: unknown) => error)
    const asked = await until('the model is asked', 30_000, () => stack.model.askedFor('m-cut')[0])
    // At any moment of a connection, often amid a frame, now and then before the first.
    let due = 0
    proxy.cutWhen(() => due > 0 && Math.random() < 0.2 && due-- > 0)
    for (let i = 0; i < CUTS; i++) {
      if (i % (CUTS / LATE_READERS) === 0) readers.push(read(`${url}&snapshot=1`))
      due++
      await new Promise((resolve) => setTimeout(resolve, TURN_MS / CUTS))
    }
    await until('all are cut', 300_000, () => due === 0)
    expect(asked.outcome).toBe('streaming')
    asked.enough = true
    await isDone(id)
    await sent
    await allHeardAll(id, readers)
    const said = replyTo(`m-cut words=${asked.sent}`)
    expect(streamedText(await expectWholeLog(stack, id))).toBe(said)
    const [first, ...others] = readers.map((reader) => reader.view())
    expect(first).toMatchObject({ running: null, turns: [{ status: 'done', reply: { parts: [{ text: said }] } }] })
    for (const view of others) expect(view).toEqual(first)
    expect(proxy.cuts).toBe(CUTS)
    expect(readers.slice(READERS).every(({ heard }) => (heard[0] ?? 0) > 1)).toBe(true)
    expect(new Set(readers.flatMap(({ control }) => control))).toEqual(new Set(['ready']))
  } finally {
    for (const reader of readers) reader.close()
  }
}, 900_000)

test('readers of a stream lose nothing when both API processes are killed during a turn and come back', async () => {
  const { id } = await openSession(stack, agent, { wait: true })
  const readers = [0, 1].map((i) => read(`${stack.api(i).url}/api/v1/managed_agents/sessions/${id}/events?follow=1`))
  try {
    const text = 'm-both words=60 gap=100'
    const reply = say(stack, id, text).catch((error: unknown) => error)
    await until('both read the turn', 20_000, () => readers.every(({ heard }) => heard.length > 10))
    await times(2, (i) => stack.api(i).kill('SIGKILL'))
    expect(Error.isError(await reply)).toBe(true)
    await times(2, (i) => stack.api(i).start())
    await isDone(id)
    expect(streamedText(await expectWholeLog(stack, id))).toBe(replyTo(text))
    expect(stack.model.askedFor('m-both').length).toBe(1)
    await allHeardAll(id, readers)
  } finally {
    for (const reader of readers) reader.close()
  }
})
