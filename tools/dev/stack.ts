import path from 'node:path'
import { createDemoGateway, type DemoGateway } from '../../demo/gateway.ts'
import { DEMO_MODEL } from '../../demo/reply.ts'
import { banner } from './banner.ts'
import { demoRepository } from './demo-repository.ts'
import { createKeeper, endOrphans, type Keeper } from './keeper.ts'
import type { Lock } from './lock.ts'
import { startPostgres } from './postgres.ts'
import { say, step } from './progress.ts'
import { removeSandboxes } from './sandboxes.ts'
import { answers, runToEnd, type Service, startService } from './service.ts'
import { choosePorts, type DevSettings, type Ports, usesCluster } from './settings.ts'
import { startTemporal } from './temporal.ts'

/** Bundling the workflows and the first connections take seconds on a busy machine. */
const SERVICE_READY_TIMEOUT_MS = 90_000
/** Requests in flight have their own, shorter limit within this. */
const API_STOP_TIMEOUT_MS = 20_000
/** What a worker does not finish in this time it begins again with the next start: a person waits for this, and the sandboxes end anyway. */
const WORKER_STOP_TIMEOUT_MS = 3_000
const MODELS_TIMEOUT_MS = 3_000

export type Stack = {
  /** Rejects when a part could not be kept running. */
  failed: Promise<never>
  /** Ends what was started, in order: nobody loses what it still needs. */
  stop(): Promise<void>
}

type Parts = {
  root: string
  settings: DevSettings
  ports: Ports
  keeper: Keeper
  /** Settings of API and worker, complete once everything they need runs. */
  env: Record<string, string>
  gateway: DemoGateway | null
  temporalUiUrl: string | null
}

/** The address under which this machine reaches what listens on `host`. */
const reachable = (host: string): string =>
  host === '0.0.0.0' || host === '::' ? 'localhost' : host === '127.0.0.1' ? 'localhost' : host

const withPostgres = async ({ settings, keeper, env }: Parts): Promise<void> => {
  if (settings.given['DATABASE_URL'] !== undefined) return
  await step('Postgres', async () => {
    await keeper.start('Postgres', async (onSpawn) => {
      const postgres = await startPostgres({
        onSpawn,
        dir: path.join(settings.dataDir, 'postgres'),
        password: settings.secrets.postgres_password,
      })
      env['DATABASE_URL'] = postgres.url
      return postgres
    })
    return `port ${new URL(env['DATABASE_URL'] ?? '').port}`
  })
}

const withTemporal = async (parts: Parts): Promise<void> => {
  const { settings, ports, keeper, env } = parts
  if (settings.given['TEMPORAL_ADDRESS'] !== undefined) {
    parts.temporalUiUrl = settings.given['TEMPORAL_UI_URL'] ?? null
    return
  }
  await step('Temporal server', async () => {
    await keeper.start('Temporal', async (onSpawn) => {
      const temporal = await startTemporal({
        onSpawn,
        dbFile: path.join(settings.dataDir, 'temporal.db'),
        port: ports.temporal,
        uiPort: ports.temporalUi,
        namespaces: [settings.given['TEMPORAL_NAMESPACE'] ?? 'lap'],
      })
      if (env['TEMPORAL_ADDRESS'] !== undefined && env['TEMPORAL_ADDRESS'] !== temporal.address) {
        await temporal.stop()
        throw new Error(`Temporal could not take its port ${ports.temporal} again`)
      }
      env['TEMPORAL_ADDRESS'] = temporal.address
      parts.temporalUiUrl = temporal.uiUrl
      return temporal
    })
    return `port ${ports.temporal}`
  })
  if (parts.temporalUiUrl !== null) env['TEMPORAL_UI_URL'] = settings.given['TEMPORAL_UI_URL'] ?? parts.temporalUiUrl
}

const withModel = async (parts: Parts): Promise<void> => {
  const { settings, ports, env } = parts
  if (settings.given['LITELLM_API_BASE'] !== undefined) return
  const key = settings.secrets.gateway_key
  parts.gateway = await createDemoGateway({ port: ports.gateway, host: '127.0.0.1', key })
  env['LITELLM_API_BASE'] = parts.gateway.url
  env['LITELLM_API_KEY'] = key
}

/** A model to show in the example: the first that the gateway names. */
const exampleModel = async ({ gateway, env }: Parts): Promise<string> => {
  if (gateway !== null) return DEMO_MODEL
  try {
    const response = await fetch(`${env['LITELLM_API_BASE']}/v1/models`, {
      headers: { authorization: `Bearer ${env['LITELLM_API_KEY']}` },
      signal: AbortSignal.timeout(MODELS_TIMEOUT_MS),
    })
    const body = (await response.json()) as { data?: { id?: string }[] }
    return body.data?.[0]?.id ?? 'NAME-OF-A-MODEL'
  } catch {
    return 'NAME-OF-A-MODEL'
  }
}

const service = ({ root, settings, env }: Parts, name: string, isReady: () => Promise<boolean>): Service => ({
  file: path.join(root, 'bin', `${name}.ts`),
  env,
  logFile: path.join(settings.dataDir, 'logs', `${name}.log`),
  isReady,
  readyTimeoutMs: SERVICE_READY_TIMEOUT_MS,
  stopTimeoutMs: name === 'worker' ? WORKER_STOP_TIMEOUT_MS : API_STOP_TIMEOUT_MS,
})

const withServices = async (parts: Parts, signal: AbortSignal): Promise<void> => {
  const { settings, ports, keeper } = parts
  await step('Migrations', async () => {
    await runToEnd(service(parts, 'migrate', () => Promise.resolve(true)))
    return ''
  })
  const host = reachable(settings.host)
  const api = service(parts, 'api', () => answers(`http://${host}:${settings.port}/readyz`))
  const worker = service(parts, 'worker', () => answers(`http://${host}:${ports.workerMetrics}/readyz`))
  const keep = (name: string, service: Service): Promise<void> =>
    keeper.start(name, (onSpawn, stopping) =>
      startService({ ...service, onSpawn, signal: AbortSignal.any([signal, stopping]) }),
    )
  const started = await Promise.allSettled([
    step('Worker', async () => {
      await keep('worker', worker)
      return usesCluster(settings)
        ? 'sandboxes are pods of the cluster'
        : 'sandboxes are processes of this machine, without isolation'
    }),
    step('API', async () => {
      await keep('api', api)
      return `port ${settings.port}`
    }),
  ])
  for (const part of started) if (part.status === 'rejected') throw part.reason
}

const baseEnv = async (settings: DevSettings, ports: Ports): Promise<Record<string, string>> => ({
  TEMPORAL_NAMESPACE: 'lap',
  SANDBOX_DRIVER: 'local',
  // Receivers that are being tried out are on this machine, too.
  WEBHOOK_ALLOW_PRIVATE_TARGETS: 'true',
  // The entry points are compiled once, not at each start.
  NODE_COMPILE_CACHE: path.join(settings.dataDir, 'compile-cache'),
  MASTER_KEY: settings.secrets.master_key,
  ENCRYPTION_KEY: settings.secrets.encryption_key,
  ...(settings.given['PREINSTALLED_GITHUB_REPO'] === undefined
    ? { PREINSTALLED_GITHUB_REPO: await demoRepository(path.join(settings.dataDir, 'demo-repo')) }
    : {}),
  ...settings.given,
  LAP_DATA_DIR: settings.dataDir,
  PORT: String(settings.port),
  METRICS_PORT: String(ports.metrics),
  WORKER_METRICS_PORT: String(ports.workerMetrics),
})

const removeOwnSandboxes = ({ settings }: Parts): Promise<void> =>
  removeSandboxes(path.resolve(settings.given['LOCAL_SANDBOX_DIR'] ?? path.join(settings.dataDir, 'sandboxes')))

const stopParts = async (parts: Parts): Promise<void> => {
  const { keeper, gateway } = parts
  const ending = (what: string, work: () => Promise<unknown>): Promise<unknown> =>
    step(what, () => work().then(() => 'ended')).catch((error: unknown) =>
      say(`${what}: ${Error.isError(error) ? error.message : String(error)}`),
    )
  if (keeper.has('api')) await ending('API', () => keeper.stop('api'))
  if (keeper.has('worker')) await ending('Worker', () => keeper.stop('worker'))
  if (usesCluster(parts.settings)) say('Sandboxes stay in the cluster, for the next start')
  else await ending('Sandboxes', () => removeOwnSandboxes(parts))
  await gateway?.close()
  if (keeper.has('Temporal')) await ending('Temporal server', () => keeper.stop('Temporal'))
  if (keeper.has('Postgres')) await ending('Postgres', () => keeper.stop('Postgres'))
}

/**
 * Starts everything that was not given, then API and worker, and says how to use it.
 * @param signal ends the start; what runs by then is ended too
 */
export const startStack = async (options: {
  root: string
  settings: DevSettings
  lock: Lock
  signal: AbortSignal
}): Promise<Stack> => {
  const { root, settings, lock, signal } = options
  const left = await endOrphans(settings.dataDir)
  if (left.length > 0) say(`Ended what an earlier start had left: ${left.join(', ')}`)
  const ports = await choosePorts(settings)
  const keeper = createKeeper(settings.dataDir, say)
  const env = await baseEnv(settings, ports)
  const parts: Parts = { root, settings, ports, keeper, env, gateway: null, temporalUiUrl: null }
  let stopping: Promise<void> | undefined
  const stop = (): Promise<void> => (stopping ??= stopParts(parts))
  try {
    const servers = await Promise.allSettled([withPostgres(parts), withTemporal(parts), withModel(parts)])
    for (const part of servers) if (part.status === 'rejected') throw part.reason
    signal.throwIfAborted()
    await withServices(parts, signal)
    signal.throwIfAborted()
  } catch (error) {
    await stop()
    throw error
  }
  const host = reachable(settings.host)
  const url = `http://${host}:${settings.port}`
  await lock.publish({
    url,
    metrics_url: `http://${host}:${ports.metrics}/metrics`,
    worker_metrics_url: `http://${host}:${ports.workerMetrics}/metrics`,
    temporal_address: env['TEMPORAL_ADDRESS'] ?? '',
    temporal_ui_url: parts.temporalUiUrl,
    database_url: env['DATABASE_URL'] ?? '',
    started_at: new Date().toISOString(),
  })
  console.log(
    banner({
      url,
      metricsUrl: `http://${host}:${ports.metrics}/metrics`,
      workerMetricsUrl: `http://${host}:${ports.workerMetrics}/metrics`,
      temporalUiUrl: parts.temporalUiUrl,
      masterKey: env['MASTER_KEY'] ?? '',
      model: await exampleModel(parts),
      isDemo: parts.gateway !== null,
      logDir: path.join(settings.dataDir, 'logs'),
    }),
  )
  return { failed: keeper.failed, stop }
}
