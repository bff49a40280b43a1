import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { expect, test } from '@jest/globals'
import { createTestDatabase } from '../test/database.ts'
import { startTransactionPooler } from '../test/transaction-pooler.ts'
import { assertDirectConnection, createDatabase, migrate, pendingMigrations } from './database.ts'

test('the entities describe the tables that the migrations make', async () => {
  await using database = await createTestDatabase()
  const sql = await database.db.orm.schema.getUpdateSchemaSQL({ wrap: false })
  // Foreign keys, partial indexes and fill factors are the migrations' own; columns and their types must be equal.
  const columns = sql.split('\n').filter((line) => /(add|alter|drop|rename) column|create table|drop table/.test(line))
  expect(columns).toEqual([])
})

test('processes that migrate together migrate once', async () => {
  await using database = await createTestDatabase()
  await database.db.sql.query('drop schema public cascade')
  await database.db.sql.query('create schema public')
  await using other = await createDatabase({ url: database.url })
  const ran = await Promise.all([migrate(database.db), migrate(other)])
  expect(ran.flat()).toHaveLength(new Set(ran.flat()).size)
  expect(ran.flat().length).toBeGreaterThan(0)
  expect(await pendingMigrations(other.sql)).toEqual([])
})

test('looking for missing migrations changes nothing, also where none ever ran', async () => {
  await using database = await createTestDatabase()
  const { sql } = database.db
  expect(await pendingMigrations(sql)).toEqual([])
  await sql.query('drop schema public cascade')
  await sql.query('create schema public')
  expect(await pendingMigrations(sql)).toContain('001-initial')
  expect(await sql.query("select from pg_class where relname = 'lap_migration'")).toEqual([])
})

test('a step of a migration may take as long as it takes', async () => {
  await using database = await createTestDatabase()
  const { sql } = database.db
  await sql.query('drop schema public cascade')
  await sql.query('create schema public')
  await sql.query('create schema watch')
  await sql.query('create table watch.seen (timeout text)')
  await sql.query(`create function watch.note() returns event_trigger language plpgsql as
    $$ begin insert into watch.seen values (current_setting('statement_timeout')); end $$`)
  await sql.query('create event trigger seen on ddl_command_end execute function watch.note()')
  await migrate(database.db)
  expect(await sql.query('select distinct timeout from watch.seen')).toEqual([{ timeout: '0' }])
  expect(await sql.query("select current_setting('statement_timeout') timeout")).toEqual([{ timeout: '30s' }])
})

test('a direct connection is accepted, also by many at once and with one connection to spare', async () => {
  await using database = await createTestDatabase()
  await using small = await createDatabase({ url: database.url, poolMax: 1 })
  const checks = Array.from({ length: 10 }, (_, i) => assertDirectConnection(i === 0 ? small : database.db))
  await expect(Promise.all(checks)).resolves.toBeDefined()
  const left =
    "select application_name from pg_stat_activity where datname = current_database() and application_name like '%check%'"
  expect(await database.db.sql.query(left)).toEqual([])
})

test.each([
  ['that has one server connection', { servers: 1 }],
  ['that gives out the connection used last', { servers: 5, pick: 'last' as const }],
  ['that gives out its connections in turn', { servers: 5, pick: 'in turn' as const }],
])('a transaction pooler %s is refused, with the remedy', async (_, options) => {
  await using database = await createTestDatabase()
  await using pooler = await startTransactionPooler(database.url, options)
  await using pooled = await createDatabase({ url: pooler.url, poolMax: 2 })
  expect(await pooled.sql.query('select 1 as one')).toEqual([{ one: 1 }])
  await expect(assertDirectConnection(pooled)).rejects.toMatchObject({
    code: 'invalid',
    message: expect.stringMatching(/DATABASE_URL.*pooler.*direct connection/),
  })
  const locks =
    "select from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())"
  expect(await database.db.sql.query(locks)).toEqual([])
})

test('a database that cannot be reached is said to be unavailable', async () => {
  await using database = await createDatabase({ url: 'postgres://nobody@127.0.0.1:1/none' })
  await expect(database.sql.query('select 1')).rejects.toMatchObject({ name: 'AppError', code: 'unavailable' })
  await expect(database.sql.tx(() => Promise.resolve())).rejects.toMatchObject({ code: 'unavailable' })
})

test('a connection cut by the server is replaced by the next call', async () => {
  await using database = await createTestDatabase()
  const { sql } = database.db
  await sql.query('select 1')
  await using admin = await createDatabase({ url: database.url })
  await admin.sql.query(
    'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
  )
  const answers = await Promise.allSettled([sql.query('select 1'), sql.query('select 1')])
  for (const answer of answers)
    if (answer.status === 'rejected') expect(answer.reason).toMatchObject({ code: 'unavailable' })
  expect(await sql.query('select 1 as one')).toEqual([{ one: 1 }])
})

test('a database that was closed opens no connection for a straggler', async () => {
  await using database = await createTestDatabase()
  const closed = await createDatabase({ url: database.url, applicationName: 'closed' })
  const own = await closed.sql.one<{ pid: number }>('select pg_backend_pid() pid')
  await closed[Symbol.asyncDispose]()
  await expect(closed.sql.query('select 1')).rejects.toMatchObject({ name: 'AppError', code: 'unavailable' })
  await expect(closed.sql.tx((tx) => tx.query('select 1'))).rejects.toMatchObject({ code: 'unavailable' })
  const left = "select from pg_stat_activity where application_name = 'closed' and pid <> $1"
  expect(await database.db.sql.query(left, [own!.pid])).toEqual([])
})

/** The code of a request for TLS in Postgres' protocol. */
const SSL_REQUEST = 80_877_103

test('no connection is made without TLS where DATABASE_URL asks for it', async () => {
  const asked: number[] = []
  // It has none.
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.once('data', (bytes) => {
      asked.push(bytes.readInt32BE(4))
      socket.end('N')
    })
  })
  await once(server.listen(0, '127.0.0.1').unref(), 'listening')
  const { port } = server.address() as AddressInfo
  await using db = await createDatabase({ url: `postgresql://lap:x@127.0.0.1:${port}/lap?sslmode=require` })
  for (const connect of [() => db.sql.query('select 1'), () => db.orm.migrator.up(), () => migrate(db)])
    await expect(connect()).rejects.toThrow('does not support SSL')
  expect(new Set(asked)).toEqual(new Set([SSL_REQUEST]))
  server.close()
})
