import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { createActivities } from '../activities/index.ts'
import type { ActivityDeps } from '../activities/deps.ts'
import { createLostHandler } from '../activities/lost.ts'
import type { Config } from '../config/config.ts'
import { createDatabase } from '../db/database.ts'
import { leakedSandboxes, pokePools, poolsToPoke } from '../db/flow.ts'
import { errorText } from '../domain/errors.ts'
import { ledgerGraceMs } from '../domain/limits.ts'
import { findHarnesses } from '../harness/registry.ts'
import { createLocalDriver } from '../local/driver.ts'
import type { SandboxDriver } from '../sandbox/driver.ts'
import { createSupervisorClient } from '../sandbox/supervisor-client.ts'
import { createLogger } from '../telemetry/log.ts'
import { startMetricsServer } from '../telemetry/metrics-server.ts'
import { createMetrics } from '../telemetry/metrics.ts'
import { createTemporal } from '../temporal/client.ts'
import { bundleWorkflows } from '../temporal/bundle.ts'
import { ensureNamespace } from '../temporal/namespace.ts'
import { createOutboxRelay } from '../temporal/outbox-relay.ts'
import { installRuntime, runWorker } from '../temporal/worker.ts'
import { createSealer } from '../vault/seal.ts'
import { settingsOrExit } from './settings.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
/** Made with the image by tools/bundle-workflows.ts; without it the worker bundles the source when it starts. */
const bundle = `${root}workflows.bundle.js`

const driverOf = async (config: Config): Promise<SandboxDriver> => {
  const { driver, localDir, localHost, localListen } = config.sandbox
  if (driver !== 'local')
    throw new Error(`SANDBOX_DRIVER=${driver} is not supported by this version; set SANDBOX_DRIVER=local`)
  const harnesses = new Map((await findHarnesses(config.harness.path)).map(({ id, dir }) => [id, dir]))
  return createLocalDriver({
    dir: localDir,
    host: localHost,
    listen: localListen,
    searchPath: process.env['PATH'] ?? '',
    harnessDir: (id) => harnesses.get(id),
  })
}

/** Aborted by the first SIGTERM or SIGINT; the second one ends the process at once. */
const endingSignal = (): AbortSignal => {
  const ending = new AbortController()
  const end = (): void => {
    if (ending.signal.aborted) process.exit(1)
    ending.abort()
  }
  process.on('SIGTERM', end)
  process.on('SIGINT', end)
  return ending.signal
}

const main = async (): Promise<void> => {
  const config = settingsOrExit(root)
  const log = createLogger({ level: config.logLevel, name: 'worker' })
  process.on('unhandledRejection', (error) => {
    log.fatal({ err: error }, 'unhandled rejection')
    process.exit(1)
  })
  for (const warning of config.warnings) log.warn(warning)
  const signal = endingSignal()
  const driver = await driverOf(config)
  installRuntime(log)

  const metrics = createMetrics()
  await using db = await createDatabase({ url: config.databaseUrl, applicationName: 'lap worker' })
  await using supervisor = createSupervisorClient({ masterKey: config.masterKey })
  await using temporal = createTemporal(config.temporal)
  await using outbox = createOutboxRelay({ sql: db.sql, temporal, log, metrics })
  metrics.readGaugesFrom(async () => ({ leakedSandboxes: await leakedSandboxes(db.sql, ledgerGraceMs) }))
  const deps: ActivityDeps = {
    sql: db.sql,
    driver,
    supervisor,
    temporal,
    outbox,
    sealer: createSealer(config.encryptionKey),
    config,
    random: Math.random,
    log,
    metrics,
  }
  try {
    await ensureNamespace(temporal, log, signal)
  } catch (error) {
    // Told to end while Temporal was not there: that is no failure.
    if (signal.aborted) return
    throw error
  }
  // The settings may be other ones than before. If the database is away, the janitor asks later.
  await poolsToPoke(db.sql, config.pool.recentAgentHours)
    .then((pools) => pokePools(db.sql, pools))
    .catch((error: unknown) => log.warn({ reason: errorText(error) }, 'the pools were not asked to look'))
  const onLost = createLostHandler(deps)
  driver.watchLost((name) => void onLost(name), signal)

  // It answers once the worker polls: whoever waits for it may count on the worker from then on.
  await using servers = new AsyncDisposableStack()
  let served = false
  const serveMetrics = async (): Promise<void> => {
    if (served) return
    served = true
    const server = await startMetricsServer({ port: config.workerMetricsPort, host: config.host, metrics })
    servers.use(server)
    log.info({ metrics_port: server.port }, 'worker ready')
  }
  const workflowBundle = existsSync(bundle) ? { codePath: bundle } : { code: await bundleWorkflows() }
  const activities = createActivities(deps)
  await runWorker({ config: config.temporal, activities, log, workflowBundle }, signal, () => void serveMetrics())
  log.info('worker ended')
}

await main().catch((error: unknown) => {
  console.error(`The worker could not start: ${errorText(error)}`)
  process.exit(1)
})
// Whatever an abandoned activity still holds, such as a connection, must not keep the process.
process.exit()
