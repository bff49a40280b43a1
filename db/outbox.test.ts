import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { addOutbox, outboxDepth, outboxFailed, outboxSent, takeOutbox } from './outbox.ts'
import type { Sql } from './sql.ts'

let database: TestDatabase
let sql: Sql

beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  await sql.query('delete from outbox')
})

const fill = (count: number) =>
  Promise.all(Array.from({ length: count }, () => addOutbox(sql, 'poke_pool', randomUUID())))

test('a message is taken by one relay only, and never more of them than asked for', async () => {
  await fill(100)
  const taken = await Promise.all(Array.from({ length: 8 }, () => takeOutbox(sql, 10)))
  for (const some of taken) expect(some.length).toBeLessThanOrEqual(10)
  const rest = await takeOutbox(sql, 100)
  const ids = [...taken.flat(), ...rest].map(({ id }) => id)
  expect(ids).toHaveLength(100)
  expect(new Set(ids).size).toBe(100)
  expect(await takeOutbox(sql, 100)).toEqual([])
})

test('messages that another relay is taking at this moment are passed by, not waited for', async () => {
  await fill(6)
  await sql.tx(async (tx) => {
    const mine = await takeOutbox(tx, 4)
    const theirs = await takeOutbox(sql, 4)
    expect([mine.length, theirs.length]).toEqual([4, 2])
  })
})

test('what was sent is gone; what failed comes again after its delay, with the reason', async () => {
  await fill(2)
  const [sent, failed] = await takeOutbox(sql, 2)
  await outboxSent(sql, [sent!.id])
  await outboxFailed(sql, [failed!.id], { error: 'no server', delayMs: 60_000 })
  expect(await takeOutbox(sql, 2)).toEqual([])
  await outboxFailed(sql, [failed!.id], { error: 'no server', delayMs: 0 })
  expect(await takeOutbox(sql, 2)).toMatchObject([{ id: failed!.id, attempts: 2 }])
  expect(await outboxDepth(sql)).toBe(1)
})

test('a message whose relay died comes up again', async () => {
  await fill(1)
  const [lost] = await takeOutbox(sql, 1)
  await sql.query("update outbox set next_at = next_at - interval '1 minute'")
  expect((await takeOutbox(sql, 1)).map(({ id }) => id)).toEqual([lost!.id])
})

test('a message of a transaction that is rolled back is never seen', async () => {
  const failing = sql.tx(async (tx) => {
    await addOutbox(tx, 'start_session', randomUUID())
    throw new Error('no')
  })
  await expect(failing).rejects.toThrow('no')
  expect(await takeOutbox(sql, 1)).toEqual([])
})

test('what a newer version has written stays for its own relays, and holds up nothing', async () => {
  await sql.query(
    "insert into outbox (kind, subject, created_at, attempts, next_at) values ('of_tomorrow', $1, now(), 0, now() - interval '1 hour')",
    [randomUUID()],
  )
  await fill(1)
  expect(await takeOutbox(sql, 1)).toMatchObject([{ kind: 'poke_pool' }])
  expect(await takeOutbox(sql, 1)).toEqual([])
  expect(await sql.query('select kind, attempts from outbox order by id')).toMatchObject([
    { kind: 'of_tomorrow', attempts: 0 },
    { kind: 'poke_pool' },
  ])
})
