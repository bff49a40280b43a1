import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { EventSource } from 'eventsource'
import { startProxy } from './proxy.ts'
import { MASTER_KEY, type Stack, startStack, until } from './stack.ts'
import { createAgent, eventsOf, openSession, say, times } from './world.ts'

const READERS = 8
const CUTS = 200

let stack: Stack
beforeAll(async () => {
  stack = await startStack({ env: { WARM_POOL_SIZE: '0' } })
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

test('an event stream that is cut two hundred times loses nothing and repeats nothing', async () => {
  const agent = await createAgent(stack)
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
    const log = await eventsOf(stack, session.id)
    const last = log.at(-1)?.seq ?? 0
    expect(last).toBeGreaterThan(CUTS)
    await until('every reader has the last event', 30_000, () =>
      readers.every(({ heard }) => heard.at(-1)?.seq === last),
    )
    const expected = log.map(({ seq }) => seq)
    await times(READERS, async (i) => expect(readers[i]?.heard.map(({ seq }) => seq)).toEqual(expected))
    expect(proxy.cuts).toBe(CUTS)
    expect(new Set(readers.flatMap(({ control }) => control))).toEqual(new Set(['ready']))
  } finally {
    for (const reader of readers) reader.close()
  }
}, 180_000)
