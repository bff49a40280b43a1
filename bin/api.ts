import { once } from 'node:events'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { createApp } from '../api/app.ts'
import type { ApiDeps } from '../api/deps.ts'
import { ConfigError, loadConfig } from '../config/config.ts'
import { readEnv } from '../config/env.ts'
import { createDatabase } from '../db/database.ts'
import { createListener } from '../db/listen.ts'
import { outboxDepth } from '../db/outbox.ts'
import { sandboxCounts, sessionCounts } from '../db/stats.ts'
import type { Sql } from '../db/sql.ts'
import { errorText } from '../domain/errors.ts'
import { drainTimeoutMs } from '../domain/limits.ts'
import { findHarnesses } from '../harness/registry.ts'
import { createSupervisorClient } from '../sandbox/supervisor-client.ts'
import { createLogger } from '../telemetry/log.ts'
import type { Logger } from '../telemetry/log.ts'
import { startMetricsServer } from '../telemetry/metrics-server.ts'
import { createMetrics } from '../telemetry/metrics.ts'
import type { GaugeValues } from '../telemetry/metrics.ts'
import { createOutboxRelay } from '../temporal/outbox-relay.ts'
import { createTemporal } from '../temporal/client.ts'
import { createSealer } from '../vault/seal.ts'

const root = new URL('..', import.meta.url).pathname

const gauges = (sql: Sql) => async (): Promise<GaugeValues> => {
  const [sandboxes, sessions, outbox] = await Promise.all([sandboxCounts(sql), sessionCounts(sql), outboxDepth(sql)])
  return { sandboxes: sandboxes.all, pool: sandboxes.pool, sessions, outbox }
}

/** Stops accepting, tells streams to come back, and gives requests in flight their time. */
const drain = async (server: Server, draining: AbortController, log: Logger): Promise<void> => {
  log.info('draining')
  const closed = once(server, 'close')
  server.close()
  draining.abort()
  server.closeIdleConnections()
  const late = new AbortController()
  await Promise.race([closed, sleep(drainTimeoutMs, undefined, { signal: late.signal }).catch(() => {})])
  late.abort()
  server.closeAllConnections()
}

const main = async (): Promise<void> => {
  const config = loadConfig(readEnv(root))
  const log = createLogger({ level: config.logLevel, name: 'api' })
  process.on('unhandledRejection', (error) => {
    log.fatal({ err: error }, 'unhandled rejection')
    process.exit(1)
  })
  for (const warning of config.warnings) log.warn(warning)
  const ending = once(process, 'SIGTERM')
  const interrupted = once(process, 'SIGINT')

  const metrics = createMetrics()
  await using db = await createDatabase({ url: config.databaseUrl, applicationName: 'lap api' })
  await using listener = createListener(config.databaseUrl, (error) =>
    log.warn({ err: error }, 'the listening connection was lost'),
  )
  await using supervisor = createSupervisorClient({ masterKey: config.masterKey })
  await using temporal = createTemporal(config.temporal)
  await using outbox = createOutboxRelay({ sql: db.sql, temporal, log, metrics })
  metrics.readGaugesFrom(gauges(db.sql))
  await using metricsServer = await startMetricsServer({ port: config.metricsPort, host: config.host, metrics })

  const draining = new AbortController()
  const deps: ApiDeps = {
    config,
    db,
    sql: db.sql,
    listener,
    temporal,
    outbox,
    supervisor,
    sealer: createSealer(config.encryptionKey),
    harnesses: await findHarnesses(config.harness.path),
    log,
    metrics,
    drain: draining.signal,
  }
  const handle = createApp(deps).callback()
  const server = createServer((req, res) => void handle(req, res))
  server.listen(config.port, config.host)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  log.info({ url: `http://${config.host}:${port}`, metrics_port: metricsServer.port }, 'api ready')
  await Promise.race([ending, interrupted])
  await drain(server, draining, log)
  log.info('api ended')
}

await main().catch((error: unknown) => {
  console.error(error instanceof ConfigError ? error.message : `The API could not start: ${errorText(error)}`)
  process.exit(1)
})
