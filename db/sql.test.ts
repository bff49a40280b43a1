import { once } from 'node:events'
import net from 'node:net'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { createDatabase } from './database.ts'
import { isConnectionError, pgArray } from './sql.ts'
import type { Sql } from './sql.ts'

let database: TestDatabase
let sql: Sql

beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
  await sql.query('create table thing (id int primary key, text text, json jsonb)')
})
afterAll(async () => database[Symbol.asyncDispose]())

const cut = (admin: Sql) =>
  admin.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
     where datname = current_database() and application_name = 'test' and pid <> pg_backend_pid()`,
  )

test('a statement goes on after a migration changed its table', async () => {
  await sql.query('create table widening (id int)')
  await sql.query('insert into widening values (1)')
  const read = (): Promise<unknown[]> => sql.query('select * from widening')
  // All connections of the pool have planned it.
  await Promise.all(Array.from({ length: 10 }, read))
  await sql.query('alter table widening add column more int default 2')
  const after = await Promise.all(Array.from({ length: 20 }, read))
  for (const rows of after) expect(rows).toEqual([{ id: 1, more: 2 }])
})

test('a transaction that meets a changed table says unavailable, and its repetition succeeds', async () => {
  await sql.query('create table growing (id int)')
  const read = (): Promise<unknown[]> => sql.tx((tx) => tx.query('select * from growing'))
  await Promise.all(Array.from({ length: 10 }, read))
  await sql.query('alter table growing add column more int')
  await expect(read()).rejects.toMatchObject({ code: 'unavailable', retryAfterSeconds: 1 })
  expect(await read()).toEqual([])
})

test.each([
  ['a NUL character', 'a\0b\0\0', 'a\ufffdb\ufffd\ufffd'],
  ['half a surrogate pair', 'a\ud83db', 'a\ufffdb'],
  ['the other half', '\ude00\ud83d', '\ufffd\ufffd'],
  ['a whole pair', '😀', '😀'],
  ['text that looks like an escape', String.raw`\u0000 \\u0000 \ud83d`, String.raw`\u0000 \\u0000 \ud83d`],
  ['a backslash before a NUL', '\\\0\\\\\0', '\\\ufffd\\\\\ufffd'],
])('%s never fails a write: as text, in JSON, as a key, in an array', async (_, given, stored) => {
  const json = { [given]: [given, { deep: given }] }
  const [row] = await sql.query('select $1::text as text, $2::jsonb as json, $3::text[] as items', [
    given,
    json,
    pgArray([given]),
  ])
  expect(row).toEqual({ text: stored, json: { [stored]: [stored, { deep: stored }] }, items: [stored] })
})

test('a transaction whose connection is cut between two statements says unavailable, and changes nothing', async () => {
  await using admin = await createDatabase({ url: database.url, applicationName: 'admin' })
  const working = sql.tx(async (tx) => {
    await tx.query("insert into thing values (1, 'x')")
    await cut(admin.sql)
    await new Promise((resolve) => setTimeout(resolve, 50))
    await tx.query('select 1')
  })
  await expect(working).rejects.toMatchObject({ name: 'AppError', code: 'unavailable' })
  expect(await sql.query('select * from thing')).toEqual([])
})

test('statements under way when all connections are cut say unavailable, and the next ones are answered', async () => {
  await using admin = await createDatabase({ url: database.url, applicationName: 'admin' })
  const waiting = Promise.allSettled(Array.from({ length: 10 }, () => sql.query('select pg_sleep(20)')))
  await new Promise((resolve) => setTimeout(resolve, 200))
  await cut(admin.sql)
  for (const one of await waiting)
    expect(one).toMatchObject({ status: 'rejected', reason: { name: 'AppError', code: 'unavailable' } })
  const answers = await Promise.all(Array.from({ length: 20 }, () => sql.query('select 1 as one')))
  for (const rows of answers) expect(rows).toEqual([{ one: 1 }])
})

test('a deadlock says unavailable, and leaves no transaction open', async () => {
  await sql.query("insert into thing values (11, 'a'), (12, 'b')")
  const lock = (first: number, second: number): Promise<void> =>
    sql.tx(async (tx) => {
      await tx.query('select from thing where id = $1 for update', [first])
      await new Promise((resolve) => setTimeout(resolve, 100))
      await tx.query('select from thing where id = $1 for update', [second])
    })
  const results = await Promise.allSettled([lock(11, 12), lock(12, 11)])
  const failed = results.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []))
  expect(failed).toMatchObject([{ code: 'unavailable' }])
  const open = "select from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'"
  expect(await sql.query(open)).toEqual([])
})

test('a nested transaction is part of the outer one', async () => {
  const failing = sql.tx(async (tx) => {
    await tx.tx((inner) => inner.query("insert into thing values (21, 'x')"))
    throw new Error('no')
  })
  await expect(failing).rejects.toThrow('no')
  expect(await sql.query('select from thing where id = 21')).toEqual([])
})

test('a mistake in a statement is not taken for a lost connection', async () => {
  await expect(sql.query('select $1::int', [])).rejects.toMatchObject({ code: '08P01' })
  await expect(sql.query('select nothing')).rejects.toMatchObject({ code: '42703' })
})

/** A way to the database that can fall silent, as when the machine behind it goes away. */
const startSilenceable = async () => {
  const target = new URL(database.url)
  const sockets = new Set<net.Socket>()
  const server = net.createServer((client) => {
    const upstream = net.connect(Number(target.port), target.hostname)
    for (const socket of [client, upstream]) sockets.add(socket.on('error', () => {}))
    client.pipe(upstream).pipe(client)
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const way = new URL(database.url)
  way.host = `127.0.0.1:${(server.address() as net.AddressInfo).port}`
  return {
    url: way.href,
    /** Those that are open now; the next ones get through. */
    silence: () => sockets.forEach((socket) => socket.unpipe()),
    [Symbol.asyncDispose]: async () => {
      sockets.forEach((socket) => socket.destroy())
      server.close()
      await once(server, 'close')
    },
  }
}

test('a server that falls silent counts as unreachable, and the next statement takes another connection', async () => {
  await using way = await startSilenceable()
  await using quick = await createDatabase({ url: way.url, answerTimeoutMs: 300 })
  const both = (): Promise<unknown>[] => [
    quick.sql.query('select 1 as one'),
    quick.sql.tx((tx) => tx.query('select 1 as one')),
  ]
  await Promise.all(both())
  way.silence()
  for (const one of await Promise.allSettled(both()))
    expect(one).toMatchObject({ status: 'rejected', reason: { name: 'AppError', code: 'unavailable' } })
  expect(await Promise.all(both())).toEqual([[{ one: 1 }], [{ one: 1 }]])
})

test('a host name that is not found is a database that cannot be reached', async () => {
  await using nowhere = await createDatabase({ url: 'postgres://nobody@database.invalid/none' })
  await expect(nowhere.sql.query('select 1')).rejects.toMatchObject({ code: 'unavailable', retryAfterSeconds: 1 })
})

test.each(['ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'])('%s is an error of the connection', (code) => {
  expect(isConnectionError(Object.assign(new Error('connect'), { code }))).toBe(true)
})
