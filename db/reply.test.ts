import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { createReplyCollector } from '../domain/reply.ts'
import { buildAgent, buildSession } from '../test/builders.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { createRandom } from '../test/soak/random.ts'
import type { Random } from '../test/soak/random.ts'
import { runningReply } from './reply.ts'
import type { Sql } from './sql.ts'

type Said = { turn_id?: string | null; type?: string; properties?: unknown }

let database: TestDatabase
let sql: Sql
let sessionId: string
const turnId = randomUUID()

beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  const agent = await buildAgent(sql)
  sessionId = (await buildSession(sql, agent.id)).session.id
})

/** Writes a log whose turn begins with entry 11. @returns the number of its last entry */
const write = async (said: Said[]): Promise<number> => {
  await sql.query(
    `insert into event (session_id, seq, type, data, created_at)
     select $1::uuid, 11, 'turn.started', jsonb_build_object('turn_id', $2::text), now()
     union all select $1::uuid, 11 + n, 'harness', data, now() from jsonb_array_elements($3::jsonb) with ordinality e (data, n)`,
    [sessionId, turnId, said],
  )
  return 11 + said.length
}

const gathered = (said: Said[]) => {
  const collector = createReplyCollector()
  for (const { turn_id, type = '', properties } of said)
    if (turn_id === turnId) collector.hear({ type, properties: (properties ?? {}) as Record<string, unknown> })
  return collector.soFar()
}

const eventOf = (random: Random): Said => {
  const pick = <T>(...items: T[]): T => items[random.below(items.length)]!
  const messageID = pick('m1', 'm2', 'm3', 'user')
  const id = pick('p1', 'p2', 'p3')
  const turn_id = random.below(20) === 0 ? pick(randomUUID(), null) : turnId
  const text = pick('a', '"', '\\', 'é😀', '')
  switch (random.below(10)) {
    case 0:
      return { turn_id, type: 'message.updated', properties: { info: { id: messageID, role: messageID === 'user' ? 'user' : 'assistant', n: random.below(9) } } } // prettier-ignore
    case 1:
    case 2:
      return { turn_id, type: 'message.part.updated', properties: { part: { id, messageID, type: 'text', text, ...pick({}, { output: 'x' }, { state: { output: [text] } }) } } } // prettier-ignore
    case 3:
      return { turn_id, type: 'message.part.removed', properties: { messageID, partID: id } }
    case 4:
      return pick<Said>(
        { turn_id, type: 'session.idle', properties: {} },
        { turn_id, type: 'message.updated' },
        { turn_id, type: 'message.part.updated', properties: { part: { id } } },
        { turn_id, type: 'message.part.delta', properties: {} },
      )
    default:
      return { turn_id, type: 'message.part.delta', properties: { messageID, partID: id, field: pick('text', 'text', 'output', 'new'), delta: text } } // prettier-ignore
  }
}

test.each([1, 2, 3, 4, 5, 6])(
  'what Postgres gathers of a turn, to any of its entries, is what a collector gathers that hears every event (%i)',
  async (seed) => {
    const random = createRandom(seed)
    const said = Array.from({ length: 400 }, () => eventOf(random))
    const last = await write(said)
    for (let upTo = 11; upTo <= last; upTo += random.between(1, 12)) {
      const expected = gathered(said.slice(0, upTo - 11))
      expect({ upTo, ...(await runningReply(sql, { sessionId, turnId, upTo })) }).toEqual({ upTo, ...expected, truncated: false }) // prettier-ignore
    }
  },
  60_000,
)

const info = { turn_id: turnId, type: 'message.updated', properties: { info: { id: 'm1', role: 'assistant' } } }
const part = (id: string, text: string): Said => ({
  turn_id: turnId,
  type: 'message.part.updated',
  properties: { part: { id, messageID: 'm1', type: 'text', text } },
})

test('a reply of more than 16 MiB loses its oldest parts and says so; updates that are outdated do not count', async () => {
  const text = 'x'.repeat(3 * 1_024 * 1_024)
  const again = Array.from({ length: 10 }, () => part('p0', text))
  const upTo = await write([info, ...again, ...['p1', 'p2', 'p3', 'p4', 'p5', 'p6'].map((id) => part(id, text))])
  const before = await runningReply(sql, { sessionId, turnId, upTo: upTo - 2 })
  expect(before.reply?.parts.map(({ id }) => id)).toEqual(['p0', 'p1', 'p2', 'p3', 'p4'])
  expect(before.truncated).toBe(false)
  const after = await runningReply(sql, { sessionId, turnId, upTo })
  expect(after.reply?.parts.map(({ id }) => id)).toEqual(['p1', 'p2', 'p3', 'p4', 'p5', 'p6'])
  expect(after.truncated).toBe(true)
})

test('a turn that says more than is looked through keeps what it said last, and says so', async () => {
  await write([info, part('old', 'begun long ago')])
  await sql.query(
    `insert into event (session_id, seq, type, data, created_at)
     select $1::uuid, 13 + n, 'harness', jsonb_build_object('turn_id', $2::text, 'type', 'session.status', 'properties', '{}'::jsonb), now() from generate_series(1, 200000) n`,
    [sessionId, turnId],
  )
  expect((await runningReply(sql, { sessionId, turnId, upTo: 13 + 199_998 })).reply?.parts).toHaveLength(1)
  expect(await runningReply(sql, { sessionId, turnId, upTo: 13 + 200_000 })).toEqual({
    reply: null,
    earlier: [],
    truncated: true,
  })
}, 60_000)
