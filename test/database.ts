import { randomBytes } from 'node:crypto'
import { Client } from 'pg'
import { createDatabase, type Database, migrate } from '../db/database.ts'

const TEMPLATE = 'lap_template'
const TEMPLATE_LOCK = 7_264_001

export type TestDatabase = AsyncDisposable & { url: string; db: Database }

const serverUrl = (): URL => {
  const given = process.env['TEST_DATABASE_URL']
  if (given === undefined) throw new Error('TEST_DATABASE_URL is set by test/global-setup.ts: run this with jest.')
  return new URL(given)
}

const urlOf = (name: string): string => {
  const url = serverUrl()
  url.pathname = `/${name}`
  return url.href
}

const withServer = async <T>(work: (client: Client) => Promise<T>): Promise<T> => {
  const client = new Client({ connectionString: urlOf('postgres') })
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

/** Migrates once per run; every database of a test is a copy, which takes some 30 ms. */
const makeTemplate = async (client: Client): Promise<void> => {
  const found = await client.query('select 1 from pg_database where datname = $1', [TEMPLATE])
  if (found.rows.length > 0) return
  const draft = `${TEMPLATE}_${randomBytes(4).toString('hex')}`
  await client.query(`create database ${draft}`)
  {
    await using db = await createDatabase({ url: urlOf(draft), applicationName: 'test' })
    await migrate(db)
  }
  await client.query(`alter database ${draft} rename to ${TEMPLATE}`)
}

/**
 * Makes an empty database with the current schema, without connecting to it.
 * @returns its URL
 */
const createEmptyDatabase = async (): Promise<string> => {
  const name = `test_${randomBytes(6).toString('hex')}`
  await withServer(async (client) => {
    await client.query('select pg_advisory_lock($1)', [TEMPLATE_LOCK])
    await makeTemplate(client)
    await client.query(`create database ${name} template ${TEMPLATE}`)
  })
  return urlOf(name)
}

const dropDatabase = (url: string): Promise<unknown> =>
  withServer((client) => client.query(`drop database if exists ${new URL(url).pathname.slice(1)} with (force)`))

/** A database of its own for a test file, with the current schema; it is dropped at the end. */
export const createTestDatabase = async (): Promise<TestDatabase> => {
  const url = await createEmptyDatabase()
  const db = await createDatabase({ url, poolMax: 10, applicationName: 'test' })
  return {
    url,
    db,
    [Symbol.asyncDispose]: async () => {
      await db[Symbol.asyncDispose]()
      await dropDatabase(url)
    },
  }
}
