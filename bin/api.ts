import { fileURLToPath } from 'node:url'
import { startServer } from '../api/server.ts'
import { assertDirectConnection, createDatabase } from '../db/database.ts'
import type { Database } from '../db/database.ts'
import { createListener } from '../db/listen.ts'
import { outboxDepth } from '../db/outbox.ts'
import type { Sql } from '../db/sql.ts'
import { sandboxCounts, sessionCounts } from '../db/stats.ts'
import { pendingDeliveries } from '../db/webhook-deliveries.ts'
import { errorText, isAppError } from '../domain/errors.ts'
import { endTimeoutMs } from '../domain/limits.ts'
import { findHarnesses } from '../harness/registry.ts'
import { createKubernetesInspector } from '../kubernetes/inspector.ts'
import { createSupervisorClient } from '../sandbox/supervisor-client.ts'
import { createLogger } from '../telemetry/log.ts'
import type { Logger } from '../telemetry/log.ts'
import { startMetricsServer } from '../telemetry/metrics-server.ts'
import { createMetrics } from '../telemetry/metrics.ts'
import type { GaugeValues } from '../telemetry/metrics.ts'
import { createTemporal } from '../temporal/client.ts'
import { createOutboxRelay } from '../temporal/outbox-relay.ts'
import { createSealer } from '../vault/seal.ts'
import { accessOf, connectCluster } from './sandboxes.ts'
import { settingsOrExit } from './settings.ts'

const gauges = (sql: Sql) => async (): Promise<GaugeValues> => {
  const [sandboxes, sessions, outbox, webhookDeliveries] = await Promise.all([
    sandboxCounts(sql),
    sessionCounts(sql),
    outboxDepth(sql),
    pendingDeliveries(sql),
  ])
  return { sandboxes: sandboxes.all, pool: sandboxes.pool, sessions, outbox, webhookDeliveries }
}

/** `LISTEN` needs a connection of its own. A database that is not there yet is waited for by whoever asks it, and `/readyz` says so. */
const refusePooler = async (db: Database, log: Logger): Promise<void> => {
  try {
    await assertDirectConnection(db)
  } catch (error) {
    if (!isAppError(error) || error.code !== 'unavailable') throw error
    log.warn({ reason: error.message }, 'the database does not answer yet')
  }
}

/** Resolves at the first SIGTERM or SIGINT; from then the process has `endTimeoutMs`, and a second one ends it at once. */
const ending = (log: Logger): Promise<void> =>
  new Promise((resolve) => {
    let told = false
    const end = (signal: NodeJS.Signals): void => {
      if (told) process.exit(1)
      told = true
      log.info({ signal }, 'draining')
      setTimeout(() => {
        log.error('not everything ended in time')
        process.exit(1)
      }, endTimeoutMs).unref()
      resolve()
    }
    process.on('SIGTERM', end)
    process.on('SIGINT', end)
  })

const main = async (): Promise<void> => {
  const config = settingsOrExit(fileURLToPath(new URL('..', import.meta.url)))
  const log = createLogger({ level: config.logLevel, name: 'api' })
  process.on('unhandledRejection', (error) => {
    log.fatal({ err: error }, 'unhandled rejection')
    process.exit(1)
  })
  for (const warning of config.warnings) log.warn(warning)
  const told = ending(log)

  const metrics = createMetrics()
  const harnesses = await findHarnesses(config.harness.path)
  await using db = await createDatabase({ url: config.databaseUrl, applicationName: 'lap api' })
  await refusePooler(db, log)
  await using listener = createListener(config.databaseUrl, (error) =>
    log.warn({ err: error }, 'the listening connection was lost'),
  )
  await using supervisor = createSupervisorClient({ masterKey: config.masterKey })
  await using client = config.sandbox.driver === 'kubernetes' ? await connectCluster() : null
  const { api, namespace } = config.k8s
  const inspector = client && createKubernetesInspector({ client, api, namespace, access: accessOf(config.k8s).by })
  await using temporal = createTemporal(config.temporal)
  await using outbox = createOutboxRelay({ sql: db.sql, temporal, log, metrics })
  metrics.readGaugesFrom(gauges(db.sql))
  await using metricsServer = await startMetricsServer({ port: config.metricsPort, host: config.host, metrics })
  const sealer = createSealer(config.encryptionKey)
  const deps = {
    config,
    db,
    sql: db.sql,
    listener,
    temporal,
    outbox,
    supervisor,
    inspector,
    sealer,
    harnesses,
    log,
    metrics,
  }
  const server = await startServer(deps, config)
  log.info({ url: server.url, metrics_port: metricsServer.port }, 'api ready')
  await told
  await server.drain()
  log.info('api ended')
}

await main().catch((error: unknown) => {
  console.error(`The API could not start: ${errorText(error)}`)
  process.exit(1)
})
