/** Brings the database to the schema of this version, then ends: 0 when it is there, 1 when it could not be brought there. */
import { fileURLToPath } from 'node:url'
import { type Config, ConfigError, loadConfig } from '../config/config.ts'
import { readEnv } from '../config/env.ts'
import { assertDirectConnection, createDatabase, migrate } from '../db/database.ts'
import { createLogger } from '../telemetry/log.ts'

const readConfig = (): Config => {
  try {
    return loadConfig(readEnv(fileURLToPath(new URL('..', import.meta.url))))
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    console.error(error.message)
    return process.exit(1)
  }
}

const config = readConfig()
const log = createLogger({ level: config.logLevel, name: 'migrate' })
try {
  await using db = await createDatabase({ url: config.databaseUrl, poolMax: 2, applicationName: 'lap-migrate' })
  await assertDirectConnection(db)
  const migrations = await migrate(db)
  if (migrations.length === 0) log.info('The database is up to date')
  else
    log.info({ migrations }, `${migrations.length === 1 ? '1 migration' : `${migrations.length} migrations`} applied`)
} catch (error) {
  log.fatal({ err: error }, 'The database could not be migrated')
  process.exitCode = 1
}
