import { expect, test } from '@jest/globals'
import { createTestDatabase } from '../test/database.ts'
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
  expect(await pendingMigrations(other)).toEqual([])
})

test('a connection that holds its session is accepted', async () => {
  await using database = await createTestDatabase()
  await expect(assertDirectConnection(database.db)).resolves.toBeUndefined()
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
