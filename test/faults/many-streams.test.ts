import { expect, test } from '@jest/globals'
import { openStream, type OpenStream } from '../event-stream.ts'
import { connectionsOf } from '../postgres-connections.ts'
import { replyTo } from './model.ts'
import { MASTER_KEY, type Stack } from './stack.ts'
import { until } from '../until.ts'
import { withStack } from './with-stack.ts'
import { createAgent, expectWholeLog, openSession, say, streamedText, textOf, times } from './world.ts'

const APIS = 2
const SESSIONS = 4
/** Of each session, over each API. */
const READERS = 125
/** Most connections of a process' pool. */
const POOL_MAX = 10

let stack: Stack
let agent: string
withStack({ apis: APIS }, async (started) => {
  stack = started
  agent = await createAgent(stack)
})

/** What each API has open: all connections, those that listen, and those that something is asked over, or that are kept for somebody. */
const connections = () =>
  times(APIS, async (i) => {
    const found = await connectionsOf(stack.api(i).pid(), (text, params) => stack.sql(text, params))
    return {
      all: found.length,
      listen: found.filter(({ name }) => name === 'lap listen').length,
      used: found.filter(({ state }) => state !== 'idle').length,
    }
  })
type Connections = Awaited<ReturnType<typeof connections>>

const open = (id: string, api: number): Promise<OpenStream> =>
  openStream(`${stack.api(api).url}/api/v1/managed_agents/sessions/${id}/events?follow=1`, {
    headers: { authorization: `Bearer ${MASTER_KEY}` },
  })

/** @returns the numbers of all entries up to the end of the turn */
const readTurn = async ({ frames, close }: OpenStream, onReady: () => void): Promise<number[]> => {
  const ids: number[] = []
  for await (const { id, data } of frames) {
    if (data.type === 'ready') onReady()
    if (id !== null) ids.push(id)
    if ((data['event'] as { type?: string } | undefined)?.type === 'turn.finished') break
  }
  close()
  return ids
}

test('a thousand streams over two APIs cost each API one connection to Postgres, and every reader gets everything', async () => {
  const sessions = await times(SESSIONS, () => openSession(stack, agent, { wait: true }))
  let ready = 0
  const readers = sessions.map(({ id }) =>
    times(READERS * APIS, async (i) => readTurn(await open(id, i % APIS), () => ready++)),
  )
  await until('all streams are open', 120_000, () => ready === SESSIONS * READERS * APIS)

  const seen: Connections[] = []
  await until('all wait for news, and no connection is used for it', 60_000, async () => {
    const now = await connections()
    seen.push(now)
    return now.every(({ used }) => used === 0)
  })
  const over = new AbortController()
  const watching = (async () => {
    while (!over.signal.aborted) {
      seen.push(await connections())
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
  })()
  const texts = sessions.map((_, i) => `m-many-${i} words=100 gap=80`)
  const replies = await times(SESSIONS, (i) => say(stack, sessions[i]?.id ?? '', texts[i] ?? '', { api: i % APIS }))
  const heard = await Promise.all(readers)
  over.abort()
  await watching

  for (const [i, { id }] of sessions.entries()) {
    const log = await expectWholeLog(stack, id)
    const upToTheEnd = log.slice(0, log.findIndex(({ type }) => type === 'turn.finished') + 1).map(({ seq }) => seq)
    expect(textOf(replies[i]?.body ?? null)).toBe(replyTo(texts[i] ?? ''))
    expect(streamedText(log)).toBe(replyTo(texts[i] ?? ''))
    for (const ids of heard[i] ?? []) expect(ids).toEqual(upToTheEnd)
  }
  expect(seen.length).toBeGreaterThan(10)
  for (const { all, listen } of seen.flat()) {
    expect(listen).toBe(1)
    expect(all).toBeLessThanOrEqual(POOL_MAX + 1)
  }
}, 300_000)
