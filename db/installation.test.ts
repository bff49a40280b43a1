import { expect, test } from '@jest/globals'
import { createTestDatabase } from '../test/database.ts'
import { migrate } from './database.ts'
import { installationId } from './installation.ts'

test('a database belongs to one installation, with an id that stays, and that no other has', async () => {
  await using database = await createTestDatabase()
  await using other = await createTestDatabase()
  // Databases of tests are copies of one, and a copy is the same installation.
  await other.db.sql.query('drop schema public cascade')
  await other.db.sql.query('create schema public')
  await migrate(other.db)
  const id = await installationId(database.db.sql)
  expect(id).toMatch(/^[0-9a-f-]{36}$/)
  expect(await installationId(database.db.sql)).toBe(id)
  expect(await installationId(other.db.sql)).not.toBe(id)
  await expect(database.db.sql.query('insert into installation values (gen_random_uuid(), true)')).rejects.toThrow(
    /installation_only_one/,
  )
})
