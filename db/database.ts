import { MikroORM, type Options } from '@mikro-orm/postgresql'
import { Migrator } from '@mikro-orm/migrations'
import { TypeOverrides } from 'pg'
import type { Pool, PoolClient } from 'pg'
import { AppError, errorText } from '../domain/errors.ts'
import { Agent } from './entities/agent.ts'
import { Event } from './entities/event.ts'
import { Claim, Outbox, PoolState } from './entities/pool.ts'
import { Sandbox } from './entities/sandbox.ts'
import { Session } from './entities/session.ts'
import { Turn } from './entities/turn.ts'
import { Migration001Initial } from './migrations/001-initial.ts'
import { createSql } from './sql.ts'
import type { Sql } from './sql.ts'

/** The database of a process: the ORM (entities, migrations) and SQL over the same pool of connections. */
export type Database = AsyncDisposable & { orm: MikroORM; sql: Sql }

const options = (url: string, extra: { poolMax?: number; applicationName?: string }): Options => ({
  clientUrl: url,
  entities: [Agent, Session, Sandbox, Turn, Event, Claim, PoolState, Outbox],
  extensions: [Migrator],
  migrations: {
    tableName: 'lap_migration',
    migrationsList: [{ name: '001-initial', class: Migration001Initial }],
    snapshot: false,
    transactional: true,
    allOrNothing: true,
  },
  schemaGenerator: { skipTables: ['lap_migration'] },
  pool: { min: 0, max: extra.poolMax ?? 20 },
  driverOptions: {
    application_name: extra.applicationName ?? 'lap',
    // The pool is shared with SQL by hand, which wants Dates and parsed JSON as `pg` gives them.
    types: new TypeOverrides(),
    keepAlive: true,
    connectionTimeoutMillis: 5_000,
    statement_timeout: 30_000,
  },
  ensureDatabase: false,
  discovery: { warnWhenNoEntities: false },
  debug: false,
  logger: () => {},
})

/** The pool that MikroORM owns; made with the first connection. */
const poolOf = (orm: MikroORM): Promise<Pool> => orm.em.getConnection().getNativeClient()

/** Opens no connection before the first query, so that a process starts while Postgres is down. */
export const createDatabase = async (settings: {
  url: string
  poolMax?: number
  applicationName?: string
}): Promise<Database> => {
  const orm = new MikroORM(options(settings.url, settings))
  return { orm, sql: createSql(() => poolOf(orm)), [Symbol.asyncDispose]: () => orm.close(true) }
}

const connect = async (db: Database): Promise<PoolClient> => {
  try {
    return await (await poolOf(db.orm)).connect()
  } catch (cause) {
    throw new AppError('unavailable', `The database cannot be reached: ${errorText(cause)}`, { cause })
  }
}

/** Held while migrating, so that replicas that start together migrate once. */
const MIGRATION_LOCK = 7_312_024

/**
 * Runs the forward migrations that are missing, one process at a time.
 * @returns names of those that ran now
 */
export const migrate = async (db: Database): Promise<string[]> => {
  const client = await connect(db)
  try {
    await client.query('select pg_advisory_lock($1)', [MIGRATION_LOCK])
    const done = await db.orm.migrator.up()
    return done.map(({ name }) => name)
  } finally {
    await client.query('select pg_advisory_unlock($1)', [MIGRATION_LOCK]).catch(() => {})
    client.release()
  }
}

/** Names of the migrations that this build has and the database has not. */
export const pendingMigrations = async (db: Database): Promise<string[]> =>
  (await db.orm.migrator.getPending()).map(({ name }) => name)

/**
 * Refuses a pooled connection: behind a transaction pooler a session lock is lost between two statements, and migrations and `LISTEN` need one.
 * @throws AppError `invalid` that names DATABASE_URL and the remedy
 */
export const assertDirectConnection = async (db: Database): Promise<void> => {
  const client = await connect(db)
  try {
    const backends = new Set<number>()
    await client.query('select pg_advisory_lock(7312025)')
    for (let i = 0; i < 5; i++) {
      const { rows } = await client.query<{ pid: number; held: boolean }>(
        "select pg_backend_pid() pid, exists (select from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and objid = 7312025) held",
      )
      backends.add(rows[0]!.pid)
      if (!rows[0]!.held || backends.size > 1)
        throw new AppError(
          'invalid',
          'DATABASE_URL leads through a transaction pooler: a session lock was not held on the next statement. Give the direct connection.',
        )
    }
  } finally {
    await client.query('select pg_advisory_unlock_all()').catch(() => {})
    client.release()
  }
}
