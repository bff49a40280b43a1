import { randomBytes, randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import type { MessagePart } from '../domain/turn.ts'
import { buildAgent, buildSession } from '../test/builders.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import type { Sql } from './sql.ts'
import { listTurns, listTurnTexts } from './thread.ts'
import { enqueueTurn } from './turns.ts'

let database: TestDatabase
let sql: Sql
let sessionId: string

beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  const agent = await buildAgent(sql)
  sessionId = (await buildSession(sql, agent.id)).session.id
})

const MIB = 1_024 * 1_024
const base64 = (bytes: number): string => randomBytes((bytes * 3) / 4).toString('base64')
const file = (bytes: number): MessagePart => ({
  type: 'file',
  mime: 'image/png',
  filename: 'a.png',
  url: `data:image/png;base64,${base64(bytes)}`,
})
const text = (said: string): MessagePart => ({ type: 'text', text: said })

const say = async (...parts: MessagePart[]): Promise<string> => {
  const turnId = randomUUID()
  await enqueueTurn(sql, { sessionId, turnId, parts, model: null, idempotencyKey: null, bodyHash: null })
  return turnId
}

test('of a long conversation the newest turns that fit are read, in order', async () => {
  const ids: string[] = []
  for (let i = 0; i < 5; i++) ids.push(await say(text(`message ${i}`), file(6 * MIB)))
  const turns = await listTurns(sql, sessionId)
  expect(turns.map(({ id }) => id)).toEqual(ids.slice(-3))
  expect(JSON.stringify(turns.at(-1)?.parts).length).toBeGreaterThan(6 * MIB)
  expect((await listTurns(sql, sessionId, 2)).map(({ id }) => id)).toEqual(ids.slice(-2))
  expect((await listTurnTexts(sql, sessionId)).map(({ id }) => id)).toEqual(ids)
})

test('the newest turn is read however large it is', async () => {
  await say(text('before'))
  const id = await say(file(20 * MIB))
  expect((await listTurns(sql, sessionId)).map((turn) => turn.id)).toEqual([id])
})

test('what is told has the names of files, and nothing of what is in them', async () => {
  const id = await say(text('look'), file(MIB))
  const reply = {
    info: { cost: 1 },
    parts: [
      { type: 'tool', tool: 'read', state: { output: 'done', attachments: [file(MIB)] } },
      text('seen'),
      file(MIB),
    ],
  }
  await sql.query("update turn set status = 'done', reply = $2::jsonb where id = $1", [id, reply])
  await say(text('without a reply'))
  const [first, second] = await listTurnTexts(sql, sessionId)
  const bare = { type: 'file', mime: 'image/png', filename: 'a.png' }
  expect(first).toMatchObject({ id, status: 'done', parts: [text('look'), bare] })
  expect(first?.reply).toEqual({
    info: { cost: 1 },
    parts: [{ type: 'tool', tool: 'read', state: { output: 'done' } }, text('seen'), bare],
  })
  expect(second).toMatchObject({ parts: [text('without a reply')], reply: null })
  const [whole] = await listTurns(sql, sessionId)
  expect(Object.keys(first!).toSorted()).toEqual(Object.keys(whole!).toSorted())
})

test('text that repeats itself weighs what it is when it is told, not what it is stored as', async () => {
  const ids: string[] = []
  for (let i = 0; i < 5; i++) ids.push(await say(text('x'.repeat(1.5 * MIB))))
  const told = await listTurnTexts(sql, sessionId)
  expect(told.map(({ id }) => id)).toEqual(ids.slice(-3))
})
