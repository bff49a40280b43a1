import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { createActivities } from '../activities/index.ts'
import type { ActivityDeps } from '../activities/deps.ts'
import { createLostHandler } from '../activities/lost.ts'
import { createDatabase } from '../db/database.ts'
import { leakedSandboxes, pokePools, poolsToPoke } from '../db/flow.ts'
import { errorText } from '../domain/errors.ts'
import { ledgerGraceMs } from '../domain/limits.ts'
import type { Problem } from '../sandbox/inspector.ts'
import { createSupervisorClient } from '../sandbox/supervisor-client.ts'
import { createLogger } from '../telemetry/log.ts'
import type { ProcessReadiness } from '../telemetry/metrics-server.ts'
import { startMetricsServer } from '../telemetry/metrics-server.ts'
import { createMetrics } from '../telemetry/metrics.ts'
import { createTemporal } from '../temporal/client.ts'
import { bundleWorkflows } from '../temporal/bundle.ts'
import { ensureNamespace } from '../temporal/namespace.ts'
import { createOutboxRelay } from '../temporal/outbox-relay.ts'
import { installRuntime, runWorker } from '../temporal/worker.ts'
import { createSealer } from '../vault/seal.ts'
import { createSender } from '../webhooks/post.ts'
import { openCheckpoints } from './checkpoints.ts'
import { awaitInstallation } from './installation.ts'
import { openSandboxes } from './sandboxes.ts'
import { settingsOrExit } from './settings.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
/** Made with the image by tools/bundle-workflows.ts; without it, and without one in the settings, the worker bundles the source when it starts. */
const bundle = `${root}workflows.bundle.js`

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

const main = async (signal: AbortSignal): Promise<void> => {
  const config = settingsOrExit(root)
  const log = createLogger({ level: config.logLevel, name: 'worker' })
  process.on('unhandledRejection', (error) => {
    log.fatal({ err: error }, 'unhandled rejection')
    process.exit(1)
  })
  for (const warning of config.warnings) log.warn(warning)
  installRuntime(log)

  const metrics = createMetrics()
  const state = { ready: false, database: [] as Problem[], cluster: [] as Problem[], checkpoints: [] as Problem[] }
  const readiness = (): ProcessReadiness => {
    const problems = [...state.database, ...state.cluster, ...state.checkpoints]
    return { ready: state.ready && problems.length === 0, problems }
  }
  const { workerMetricsPort: port, host } = config
  await using server = await startMetricsServer({ port, host, metrics, readiness })
  await using db = await createDatabase({ url: config.databaseUrl, applicationName: 'lap worker' })
  await using supervisor = createSupervisorClient({ masterKey: config.masterKey })
  await using temporal = createTemporal(config.temporal)
  await using outbox = createOutboxRelay({ sql: db.sql, temporal, log, metrics })
  metrics.readGaugesFrom(async () => ({ leakedSandboxes: await leakedSandboxes(db.sql, ledgerGraceMs) }))
  const installation = () => awaitInstallation(db.sql, { signal, onProblems: (now) => (state.database = now) })
  const onClusterProblems = (now: Problem[]) => (state.cluster = now)
  await using sandboxes = await openSandboxes(config, { log, signal, onProblems: onClusterProblems, installation })
  const onStoreProblems = (now: Problem[]) => (state.checkpoints = now)
  await using checkpoints = await openCheckpoints(config, db.sql, { log, signal, onProblems: onStoreProblems })
  const deps: ActivityDeps = {
    sql: db.sql,
    driver: sandboxes.driver,
    supervisor,
    temporal,
    outbox,
    sealer: createSealer(config.encryptionKey),
    webhooks: createSender({ allowPrivate: config.webhooks.allowPrivate }),
    checkpoints: checkpoints.stores,
    config,
    random: Math.random,
    log,
    metrics,
  }
  await ensureNamespace(temporal, log, signal)
  // The settings may be other ones than before. If the database is away, the janitor asks later.
  await poolsToPoke(db.sql, config.pool.recentAgentHours)
    .then((pools) => pokePools(db.sql, pools))
    .catch((error: unknown) => log.warn({ reason: errorText(error) }, 'the pools were not asked to look'))
  const onLost = createLostHandler(deps)
  sandboxes.driver.watchLost((name) => void onLost(name), signal)

  // It polls: whoever waits for `/readyz` may count on the worker from then on.
  const onPolling = (): void => {
    if (state.ready) return
    state.ready = true
    log.info({ metrics_port: server.port }, 'worker ready')
  }
  const codePath = config.temporal.workflowBundle ?? (existsSync(bundle) ? bundle : null)
  const workflowBundle = codePath === null ? { code: await bundleWorkflows() } : { codePath }
  const activities = createActivities(deps)
  await runWorker({ config: config.temporal, activities, log, workflowBundle }, signal, onPolling)
  log.info('worker ended')
}

const ending = endingSignal()
await main(ending).catch((error: unknown) => {
  // Told to end while it waited for Temporal or the cluster: that is no failure.
  if (ending.aborted) return
  console.error(`The worker could not start: ${errorText(error)}`)
  process.exit(1)
})
// Whatever an abandoned activity still holds, such as a connection, must not keep the process.
process.exit()
