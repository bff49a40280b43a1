import { randomInt } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { replyTo } from '../faults/model.ts'
import { type Part, type Stack, startStack } from '../faults/stack.ts'
import {
  createAgent,
  expectWholeLog,
  getSession,
  insist,
  leavesNothing,
  type Message,
  type Session,
  textOf,
  times,
  turnsOf,
} from '../faults/world.ts'
import { createRandom, type Random } from './random.ts'

/** New sessions are opened for this long; those that are open then go on to their end. */
const OPENING_MS = Number(process.env['SOAK_SECONDS'] ?? 150) * 1_000
const SEED = Number(process.env['SOAK_SEED'] ?? randomInt(2 ** 31))
const TURNS = 3
const CLIENTS = 8

let stack: Stack
beforeAll(async () => {
  console.log(`SOAK_SEED=${SEED}`)
  stack = await startStack({ apis: 2, workers: 2, env: { WARM_POOL_SIZE: '4', WARM_POOL_MAX_PROVISIONING: '2' } })
}, 120_000)
afterAll(async () => stack?.[Symbol.asyncDispose](), 120_000)

type Fault = { name: string; strike: () => Promise<void> }

const killed = (name: string, part: Part): Fault => ({
  name,
  strike: async () => {
    await part.kill('SIGKILL')
    await part.start()
  },
})

/** What each of two hands strikes: processes of the platform often, a server now and then. What they do overlaps. */
const handsOf = ({ api, worker, postgres, temporal }: Stack): Fault[][] => {
  const processes = (i: number): Fault[] => [killed(`api ${i}`, api(i)), killed(`worker ${i}`, worker(i))]
  return [
    [
      ...processes(0),
      ...processes(0),
      { name: 'postgres', strike: () => postgres.kill().then(() => postgres.start()) },
    ],
    [
      ...processes(1),
      ...processes(1),
      { name: 'temporal', strike: () => temporal.stop().then(() => temporal.start()) },
    ],
  ]
}

/** One fault after the other, each over before the next. @returns their names */
const strikeAtRandom = async (faults: Fault[], random: Random, stop: AbortSignal): Promise<string[]> => {
  const struck: string[] = []
  while (!stop.aborted) {
    await sleep(random.between(300, 3_000))
    const fault = faults[random.below(faults.length)]
    if (fault === undefined || stop.aborted) continue
    struck.push(fault.name)
    await fault.strike()
  }
  return struck
}

const idOf = (n: number, turn: number): string => `m-${n}-${turn}.`

/** One session from its create to its last answer. @returns its id */
const live = async (agent: string, n: number): Promise<string> => {
  const { status, body } = await insist<Session>(stack, 'POST', `/agents/${agent}/session`, {
    body: { title: `${n}` },
    key: `create-${n}`,
  })
  expect(status).toBe(200)
  for (let turn = 0; turn < TURNS; turn++) {
    const text = `${idOf(n, turn)} words=10 gap=50`
    const reply = await insist<Message>(stack, 'POST', `/sessions/${body.id}/message`, {
      body: { text },
      key: `turn-${n}-${turn}`,
    })
    const said = { text, status: reply.status, reply: textOf(reply.body) }
    expect(said).toEqual({ text, status: 200, reply: replyTo(text) })
  }
  return body.id
}

test('while processes and servers are killed at random, no session is lost, no turn runs twice, no sandbox stays', async () => {
  const agent = await createAgent(stack)
  const over = new AbortController()
  const striking = Promise.all(
    handsOf(stack).map((faults, i) => strikeAtRandom(faults, createRandom(SEED + i), over.signal)),
  )
  const ids: string[] = []
  const opensUntil = Date.now() + OPENING_MS
  try {
    await times(CLIENTS, async (client) => {
      for (let n = client; Date.now() < opensUntil; n += CLIENTS) ids[n] = await live(agent, n)
    })
  } finally {
    over.abort()
  }
  const struck = (await striking).flat()
  const sessions = ids.flatMap((id, n) => [{ id, n }])
  console.log(
    `SOAK_SEED=${SEED}: ${sessions.length} sessions of ${TURNS} turns during ${struck.length} faults: ${struck.join(', ')}`,
  )
  expect(struck.length).toBeGreaterThan(OPENING_MS / 30_000)

  expect(new Set(sessions.map(({ id }) => id)).size).toBe(sessions.length)
  for (const { id, n } of sessions) {
    expect((await turnsOf(stack, id)).map(({ status }) => status)).toEqual(Array.from({ length: TURNS }, () => 'done'))
    await expectWholeLog(stack, id)
    expect(await getSession(stack, id)).toMatchObject({ status: 'ready', attempt: 1 })
    const asked = Array.from({ length: TURNS }, (_, turn) => stack.model.askedFor(idOf(n, turn)).length)
    expect({ n, asked }).toEqual({ n, asked: Array.from({ length: TURNS }, () => 1) })
  }
  // A create that was answered by nobody made a session too; deleting the agent ends them all.
  expect((await insist(stack, 'DELETE', `/agents/${agent}`, { key: 'end' })).status).toBe(204)
  const names = await stack.sql<{ name: string }>('select name from sandbox')
  await leavesNothing(
    stack,
    names.map(({ name }) => name),
    120_000,
  )
  expect(stack.sandboxProcesses()).toEqual([])
  expect(await stack.sql("select id from session where status in ('creating', 'ready')")).toEqual([])
  expect((await stack.sql('select id from session')).length).toBe(sessions.length)
}, 900_000)
