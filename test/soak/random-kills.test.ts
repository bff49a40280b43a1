import { randomInt } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { replyTo } from '../faults/model.ts'
import { type Part, type Reply, type Stack, startStack, until } from '../faults/stack.ts'
import {
  createAgent,
  expectWholeLog,
  leavesNothing,
  type Message,
  type Session,
  textOf,
  times,
  turnsOf,
} from '../faults/world.ts'

const SESSIONS = 60
const TURNS = 3
const CLIENTS = 6

let stack: Stack
beforeAll(async () => {
  stack = await startStack({ apis: 2, workers: 2, env: { WARM_POOL_SIZE: '4', WARM_POOL_MAX_PROVISIONING: '2' } })
}, 90_000)
afterAll(async () => stack?.[Symbol.asyncDispose](), 120_000)

/** As a careful client does: the same key on either API until there is an answer. */
const insist = async <T>(method: string, path: string, body: unknown, key: string): Promise<Reply<T>> => {
  let api = randomInt(2)
  return until(`an answer to ${method} ${path}`, 180_000, async () => {
    api = 1 - api
    const reply = await stack.http<T>(method, path, body, {
      api,
      headers: { 'idempotency-key': key },
      signal: AbortSignal.timeout(60_000),
    })
    return reply.status < 500 && reply.status !== 429 ? reply : null
  })
}

/** Kills one process after the other, each comes back; never both of a kind at once. */
const killAtRandom = async (parts: Part[], stop: AbortSignal): Promise<number> => {
  let kills = 0
  while (!stop.aborted) {
    await new Promise((resolve) => setTimeout(resolve, randomInt(300, 2_500)))
    const part = parts[randomInt(parts.length)]
    await part?.kill('SIGKILL')
    await part?.start()
    kills++
  }
  return kills
}

test('sixty sessions, while APIs and workers are killed at random: none is lost, no turn runs twice, no sandbox stays', async () => {
  const agent = await createAgent(stack)
  const done = new AbortController()
  const killing = killAtRandom([stack.api(0), stack.worker(0), stack.api(1), stack.worker(1)], done.signal)
  const ids: string[] = []
  const live = async (n: number): Promise<void> => {
    const created = await insist<Session>('POST', `/agents/${agent}/session`, { title: `${n}` }, `create-${n}`)
    expect(created.status).toBe(200)
    ids.push(created.body.id)
    for (let t = 0; t < TURNS; t++) {
      const text = `m-${n}-${t}. words=10 gap=20`
      const reply = await insist<Message>('POST', `/sessions/${created.body.id}/message`, { text }, `turn-${n}-${t}`)
      expect({ text, status: reply.status, reply: textOf(reply.body) }).toEqual({
        text,
        status: 200,
        reply: replyTo(text),
      })
    }
  }
  await times(CLIENTS, async (client) => {
    for (let n = client; n < SESSIONS; n += CLIENTS) await live(n)
  })
  done.abort()
  const kills = await killing
  console.log(`${kills} kills during ${SESSIONS} sessions with ${TURNS} turns each`)
  expect(kills).toBeGreaterThan(5)

  expect(new Set(ids).size).toBe(SESSIONS)
  for (const id of ids) {
    expect((await turnsOf(stack, id)).map(({ status }) => status)).toEqual(Array.from({ length: TURNS }, () => 'done'))
    await expectWholeLog(stack, id)
  }
  for (let n = 0; n < SESSIONS; n++)
    for (let t = 0; t < TURNS; t++)
      expect({ n, t, asked: stack.model.askedFor(`m-${n}-${t}.`).length }).toEqual({ n, t, asked: 1 })

  expect((await insist('DELETE', `/agents/${agent}`, undefined, 'end')).status).toBe(204)
  const names = await stack.sql<{ name: string }>('select name from sandbox')
  await leavesNothing(
    stack,
    names.map(({ name }) => name),
    90_000,
  )
  expect(stack.sandboxProcesses()).toEqual([])
  expect(await stack.sql("select id from session where status in ('creating', 'ready')")).toEqual([])
}, 600_000)
