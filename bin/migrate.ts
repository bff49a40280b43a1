/** Brings the database to the schema of this version, then ends: 0 when it is there, 1 when it could not be brought there. */
import { fileURLToPath } from 'node:url'
import { assertDirectConnection, createDatabase, migrate } from '../db/database.ts'
import { createLogger } from '../telemetry/log.ts'
import { settingsOrExit } from './settings.ts'

const config = settingsOrExit(fileURLToPath(new URL('..', import.meta.url)))
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
