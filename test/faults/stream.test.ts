import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { EventSource } from 'eventsource'
import { startProxy } from './proxy.ts'
import { MASTER_KEY, type Stack, startStack, until } from './stack.ts'
import { createAgent, eventsOf, expectWholeLog, openSession, say, streamedText, times, turnsOf } from './world.ts'
import { replyTo } from './model.ts'

// A reader is away for three seconds after each cut, as browsers are.
const READERS = 24
const CUTS = 200

let stack: Stack
let agent: string
beforeAll(async () => {
  stack = await startStack({ apis: 2, env: { WARM_POOL_SIZE: '0' } })
  agent = await createAgent(stack)
}, 90_000)
afterAll(async () => stack?.[Symbol.asyncDispose](), 60_000)

type Heard = { seq: number; type: string; data: unknown }
type Frame = { type: string; seq?: number; event?: { type: string } }

/** Reads a session's log with the npm client, which reconnects by itself and sends the last id it saw. */
const read = (url: string) => {
  const heard: Heard[] = []
  const control: string[] = []
  const source = new EventSource(url, {
    fetch: (input, init) =>
      fetch(input, { ...init, headers: { ...init.headers, authorization: `Bearer ${MASTER_KEY}` } }),
  })
  source.addEventListener('message', (message) => {
    const frame: Frame = JSON.parse(String(message.data))
    if (frame.seq === undefined) control.push(frame.type)
    else heard.push({ seq: frame.seq, type: frame.event?.type ?? '', data: frame.event })
  })
  return { heard, control, close: () => source.close() }
}

type Reader = ReturnType<typeof read>

/** Every reader gets to the end of the log and has had each event of it once, in order. @returns the number of the last one */
const allHeardAll = async (sessionId: string, readers: Reader[]): Promise<number> => {
  const log = await eventsOf(stack, sessionId)
  const last = log.at(-1)?.seq ?? 0
  await until('every reader has the last event', 30_000, () =>
    readers.every(({ heard }) => (heard.at(-1)?.seq ?? 0) >= last),
  )
  const expected = log.map(({ seq }) => seq)
  for (const { heard } of readers) expect(heard.map(({ seq }) => seq)).toEqual(expected)
  return last
}

test('an event stream that is cut two hundred times loses nothing and repeats nothing', async () => {
  const session = await openSession(stack, agent, { wait: true })
  await using proxy = await startProxy(Number(new URL(stack.api().url).port))
  // At a random moment of each connection, often in the middle of a frame.
  proxy.cutWhen((bytesBefore) => proxy.cuts < CUTS && bytesBefore > 0 && Math.random() < 0.35)
  const url = `http://127.0.0.1:${proxy.port}/api/v1/managed_agents/sessions/${session.id}/events?follow=1`
  const readers = Array.from({ length: READERS }, () => read(url))
  try {
    // Turn after turn, so that events flow until the last cut.
    let turns = 0
    while (proxy.cuts < CUTS) {
      expect((await say(stack, session.id, `m-flow-${turns++} words=60 gap=30`)).status).toBe(200)
      if (turns > 60) throw new Error(`only ${proxy.cuts} cuts in ${turns} turns`)
    }
    const last = await allHeardAll(session.id, readers)
    expect(last).toBeGreaterThan(CUTS)
    expect(proxy.cuts).toBe(CUTS)
    expect(new Set(readers.flatMap(({ control }) => control))).toEqual(new Set(['ready']))
  } finally {
    for (const reader of readers) reader.close()
  }
}, 180_000)

test('readers of a stream lose nothing when both API processes are killed during a turn and come back', async () => {
  const session = await openSession(stack, agent, { wait: true })
  const readers = [0, 1].map((i) =>
    read(`${stack.api(i).url}/api/v1/managed_agents/sessions/${session.id}/events?follow=1`),
  )
  try {
    const text = 'm-both words=60 gap=100'
    const reply = say(stack, session.id, text).catch((error: unknown) => error)
    await until('both read the turn', 20_000, () => readers.every(({ heard }) => heard.length > 10))
    await times(2, (i) => stack.api(i).kill('SIGKILL'))
    expect(Error.isError(await reply)).toBe(true)
    await times(2, (i) => stack.api(i).start())
    await until('the turn is done', 30_000, async () => (await turnsOf(stack, session.id))[0]?.status === 'done')
    expect(streamedText(await expectWholeLog(stack, session.id))).toBe(replyTo(text))
    expect(stack.model.askedFor('m-both').length).toBe(1)
    await allHeardAll(session.id, readers)
  } finally {
    for (const reader of readers) reader.close()
  }
}, 90_000)
