import { MikroORM, type Options } from '@mikro-orm/postgresql'
import { Migrator } from '@mikro-orm/migrations'
import { Client, TypeOverrides } from 'pg'
import type { Pool } from 'pg'
import { AppError, errorText } from '../domain/errors.ts'
import { Agent } from './entities/agent.ts'
import { Checkpoint, CheckpointChunk } from './entities/checkpoint.ts'
import { Event } from './entities/event.ts'
import { Installation } from './entities/installation.ts'
import { Permission } from './entities/permission.ts'
import { Claim, Outbox, PoolState } from './entities/pool.ts'
import { Sandbox } from './entities/sandbox.ts'
import { Session } from './entities/session.ts'
import { TerminalTicket } from './entities/terminal-ticket.ts'
import { Turn } from './entities/turn.ts'
import { Webhook, WebhookDelivery } from './entities/webhook.ts'
import { Migration001Initial } from './migrations/001-initial.ts'
import { Migration002AgentResources } from './migrations/002-agent-resources.ts'
import { Migration003Turns } from './migrations/003-turns.ts'
import { Migration004Webhooks } from './migrations/004-webhooks.ts'
import { Migration005Checkpoints } from './migrations/005-checkpoints.ts'
import { Migration006TerminalTickets } from './migrations/006-terminal-tickets.ts'
import { Migration007Installation } from './migrations/007-installation.ts'
import { Migration008CheckpointPlaces } from './migrations/008-checkpoint-places.ts'
import { Migration009UsageOutsideTurns } from './migrations/009-usage-outside-turns.ts'
import { createSql, isConnectionError } from './sql.ts'
import type { Sql } from './sql.ts'

/** The database of a process: the ORM (entities, migrations) and SQL over the same pool of connections. */
export type Database = AsyncDisposable & { orm: MikroORM; sql: Sql }

const MIGRATIONS = [
  { name: '001-initial', class: Migration001Initial },
  { name: '002-agent-resources', class: Migration002AgentResources },
  { name: '003-turns', class: Migration003Turns },
  { name: '004-webhooks', class: Migration004Webhooks },
  { name: '005-checkpoints', class: Migration005Checkpoints },
  { name: '006-terminal-tickets', class: Migration006TerminalTickets },
  { name: '007-installation', class: Migration007Installation },
  { name: '008-checkpoint-places', class: Migration008CheckpointPlaces },
  { name: '009-usage-outside-turns', class: Migration009UsageOutsideTurns },
]

type Extra = {
  poolMax?: number
  applicationName?: string
  /** Statements may take as long as they take: the first index on a table that has grown may take minutes. */
  untimed?: boolean
}

const options = (url: string, extra: Extra): Options => ({
  clientUrl: url,
  entities: [
    Agent,
    Session,
    Sandbox,
    Turn,
    Event,
    Claim,
    PoolState,
    Outbox,
    Permission,
    Webhook,
    WebhookDelivery,
    Checkpoint,
    CheckpointChunk,
    TerminalTicket,
    Installation,
  ],
  extensions: [Migrator],
  migrations: {
    tableName: 'lap_migration',
    migrationsList: MIGRATIONS,
    snapshot: false,
    transactional: true,
    allOrNothing: true,
  },
  schemaGenerator: { skipTables: ['lap_migration'] },
  // More connections than cores only wait for each other; each has to plan every statement once.
  pool: { min: 0, max: extra.poolMax ?? 10 },
  driverOptions: {
    // The ORM takes host, port, user, password and name from it, and nothing of its parameters: not how TLS is wanted, not the folder of a socket.
    connectionString: url,
    application_name: extra.applicationName ?? 'lap',
    // The pool is shared with SQL by hand, which wants Dates and parsed JSON as `pg` gives them.
    types: new TypeOverrides(),
    keepAlive: true,
    // Planning costs more than running the hot statements, and opening a connection more than both. Postgres would plan each five times per
    // connection before it keeps a plan, and the pool would close a connection after 10 s.
    options: `-c plan_cache_mode=force_generic_plan${extra.untimed ? ' -c statement_timeout=0' : ''}`,
    idleTimeoutMillis: 10 * 60_000,
    connectionTimeoutMillis: 5_000,
    ...(extra.untimed ? {} : { statement_timeout: 30_000 }),
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
  /** A statement without an answer for this long fails as `unavailable`. */
  answerTimeoutMs?: number
}): Promise<Database> => {
  const orm = new MikroORM(options(settings.url, settings))
  let closed = false
  let opened: Pool | null = null
  const pool = async (): Promise<Pool> => {
    // The ORM would open a new one, which nobody closes and which keeps the process from ending.
    if (closed) throw new AppError('unavailable', 'The database connection of this process has been closed')
    return (opened = await poolOf(orm))
  }
  const close = async (): Promise<void> => {
    closed = true
    await orm.close(true)
    // The ORM leaves a pool open that it has not used itself; its idle connections would keep the process from ending.
    if (opened !== null && !opened.ending) await opened.end()
  }
  return { orm, sql: createSql(pool, settings.answerTimeoutMs), [Symbol.asyncDispose]: close }
}

/** Connections outside the pool, each ended with the work: for what must hold a connection, without the pool's limits on number and time. */
const withClients = async <T>(db: Database, count: number, work: (clients: Client[]) => Promise<T>): Promise<T> => {
  const connectionString = db.orm.config.get('clientUrl') ?? ''
  const clients = Array.from(
    { length: count },
    () =>
      new Client({ connectionString, application_name: 'lap check', connectionTimeoutMillis: 5_000, keepAlive: true }),
  )
  // A connection that is lost while nothing is asked shows in the next answer.
  for (const client of clients) client.on('error', () => {})
  try {
    await Promise.all(clients.map((client) => client.connect()))
    return await work(clients)
  } catch (cause) {
    throw isConnectionError(cause)
      ? new AppError('unavailable', `The database cannot be reached: ${errorText(cause)}`, { cause })
      : cause
  } finally {
    await Promise.all(clients.map((client) => client.end().catch(() => {})))
  }
}

/** Held while migrating, so that replicas that start together migrate once. */
const MIGRATION_LOCK = 7_312_024

/**
 * Runs the forward migrations that are missing, one process at a time.
 * @returns names of those that ran now
 */
export const migrate = (db: Database): Promise<string[]> =>
  withClients(db, 1, async ([client]) => {
    // Whoever migrates may take long, and so may the wait for it.
    await client!.query('set statement_timeout = 0')
    await client!.query('select pg_advisory_lock($1)', [MIGRATION_LOCK])
    const orm = new MikroORM(
      options(db.orm.config.get('clientUrl') ?? '', { poolMax: 2, applicationName: 'lap migrate', untimed: true }),
    )
    try {
      const done = await orm.migrator.up()
      return done.map(({ name }) => name)
    } finally {
      await orm.close(true)
    }
  })

/** Names of the migrations that this build has and the database has not. Only looks: the ORM would make its table. */
export const pendingMigrations = async (sql: Sql): Promise<string[]> => {
  const table = await sql.one("select where to_regclass('lap_migration') is not null")
  const done = table === null ? [] : await sql.query<{ name: string }>('select name from lap_migration')
  const names = new Set(done.map(({ name }) => name))
  return MIGRATIONS.map(({ name }) => name).filter((name) => !names.has(name))
}

const backendOf = async (client: Client): Promise<number> =>
  (await client.query<{ pid: number }>('select pg_backend_pid() pid')).rows[0]!.pid

/**
 * Refuses a pooled connection: behind a transaction pooler a session lock is lost between two statements, and migrations and `LISTEN` need one. It shows in
 * that two connections share a backend, or that one changes its backend; which of the two depends on how the pooler picks. Leaves nothing behind there.
 * @throws AppError `invalid` that names DATABASE_URL and the remedy
 */
export const assertDirectConnection = (db: Database): Promise<void> =>
  withClients(db, 2, async ([one, other]) => {
    const own = await backendOf(one!)
    const seen = new Set<number>()
    for (let i = 0; i < 5; i++) {
      // Within its transaction the other connection has a backend for certain: the first one's, if that is free between statements.
      await other!.query('begin')
      seen.add(await backendOf(other!))
      await other!.query('commit')
      if (seen.size > 1 || seen.has(own) || (await backendOf(one!)) !== own)
        throw new AppError(
          'invalid',
          'DATABASE_URL leads through a transaction pooler, where a session lock is lost between two statements. Give the direct connection.',
        )
    }
  })
