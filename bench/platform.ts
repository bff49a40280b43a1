import { randomBytes } from 'node:crypto'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { watchOver } from '../test/servers.ts'
import { demoRepository } from '../tools/dev/demo-repository.ts'
import { freePort } from '../tools/dev/ports.ts'
import { type RunningPostgres, startPostgres } from '../tools/dev/postgres.ts'
import type { ProcessRecord } from '../tools/dev/process.ts'
import { removeSandboxes } from '../tools/dev/sandboxes.ts'
import { answers, runToEnd, type Service, startService } from '../tools/dev/service.ts'
import { type RunningTemporal, startTemporal } from '../tools/dev/temporal.ts'
import { type Client, createClient } from './client.ts'
import { type BenchModel, startModel } from './model.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const READY_TIMEOUT_MS = 90_000
const STOP_TIMEOUT_MS = 20_000

/** Processes of the platform with one set of settings. */
export type Processes = {
  /** Two API processes. */
  apis: [Client, Client]
  /** Process ids of the two. */
  apiPids: [number, number]
  /** Resident memory in MB, by process. */
  memory(): Promise<{ api: number; worker: number }>
  stop(): Promise<void>
}

/** What stays for a whole run: the servers, and the folder that everything is in. */
export type Servers = AsyncDisposable & {
  dir: string
  sandboxDir: string
  postgres: RunningPostgres
  temporal: RunningTemporal
  model: BenchModel
  /** Has a process end with this one, however this one ends. */
  watch(record: ProcessRecord): void
  /** Starts two APIs and a worker with these settings beside the common ones. */
  start(settings: Record<string, string>): Promise<Processes>
}

const inherited = (): Record<string, string> =>
  Object.fromEntries(
    ['PATH', 'HOME', 'LANG', 'TMPDIR'].flatMap((name) => {
      const value = process.env[name]
      return value === undefined ? [] : [[name, value]]
    }),
  )

/** Resident memory of a process, in MB, as its metrics say. */
const residentMb = async (metricsPort: number): Promise<number> => {
  const text = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text()
  const bytes = Number(/^process_resident_memory_bytes (\S+)$/m.exec(text)?.[1])
  return bytes / 1024 / 1024
}

type Part = { service: Service; metricsPort: number; url: string }

const partOf = async (kind: 'api' | 'worker', name: string, env: Record<string, string>): Promise<Part> => {
  const [port, metricsPort] = [await freePort(), await freePort()]
  const own: Record<string, string> =
    kind === 'api'
      ? { PORT: String(port), METRICS_PORT: String(metricsPort) }
      : { WORKER_METRICS_PORT: String(metricsPort) }
  const url = `http://127.0.0.1:${port}`
  const probe = kind === 'api' ? `${url}/readyz` : `http://127.0.0.1:${metricsPort}/readyz`
  return {
    metricsPort,
    url,
    service: {
      file: path.join(root, 'bin', `${kind}.ts`),
      env: { ...env, ...own },
      logFile: path.join(env['LAP_DATA_DIR'] ?? '.', 'logs', `${name}.log`),
      isReady: () => answers(probe),
      readyTimeoutMs: READY_TIMEOUT_MS,
      stopTimeoutMs: STOP_TIMEOUT_MS,
    },
  }
}

const startProcesses = async (env: Record<string, string>, onSpawn: Servers['watch']): Promise<Processes> => {
  const first = await partOf('api', 'api-1', env)
  const second = await partOf('api', 'api-2', env)
  const worker = await partOf('worker', 'worker', env)
  const started = await Promise.allSettled(
    [first, second, worker].map(({ service }) => startService({ ...service, onSpawn })),
  )
  const running = started.flatMap((part) => (part.status === 'fulfilled' ? [part.value] : []))
  const stop = async (): Promise<void> => void (await Promise.all(running.map((part) => part.stop())))
  for (const part of started) {
    if (part.status === 'fulfilled') continue
    await stop()
    throw part.reason
  }
  const key = env['MASTER_KEY'] ?? ''
  const [one, other] = running
  return {
    apis: [createClient(first.url, key), createClient(second.url, key)],
    apiPids: [one?.record.pid ?? 0, other?.record.pid ?? 0],
    memory: async () => ({ api: await residentMb(first.metricsPort), worker: await residentMb(worker.metricsPort) }),
    stop,
  }
}

/** Settings that all runs share: those of production, with sandboxes of this machine. */
const commonEnv = async (
  dir: string,
  { postgres, temporal, model }: Pick<Servers, 'postgres' | 'temporal' | 'model'>,
): Promise<Record<string, string>> => ({
  ...inherited(),
  NODE_ENV: 'production',
  DATABASE_URL: postgres.url,
  MASTER_KEY: `bench-${randomBytes(12).toString('hex')}`,
  ENCRYPTION_KEY: randomBytes(32).toString('base64'),
  LITELLM_API_BASE: model.url,
  LITELLM_API_KEY: 'sk-bench',
  PREINSTALLED_GITHUB_REPO: await demoRepository(path.join(dir, 'repository')),
  TEMPORAL_ADDRESS: temporal.address,
  SANDBOX_DRIVER: 'local',
  LAP_DATA_DIR: dir,
  HARNESS_PATH: path.join(root, 'bench', 'harness'),
  WARM_POOL_TTL_MINUTES: '600',
})

/**
 * Starts Postgres and Temporal as `npm start` does, with their safe defaults: every commit reaches the disk before it is answered. All data is in one
 * temporary folder, which goes at the end together with every process.
 */
export const startServers = async ({ modelHost = '127.0.0.1' } = {}): Promise<Servers> => {
  await using cleanup = new AsyncDisposableStack()
  const dir = await mkdtemp(path.join(os.tmpdir(), 'lap-bench-'))
  cleanup.defer(() => rm(dir, { recursive: true, force: true, maxRetries: 5 }))
  await chmod(dir, 0o755)
  const watch = await watchOver([], dir)
  const model = cleanup.use(await startModel(modelHost))
  const postgres = await startPostgres({ dir: path.join(dir, 'postgres'), onSpawn: watch })
  cleanup.defer(() => postgres.stop())
  const dbFile = path.join(dir, 'temporal.db')
  const temporal = await startTemporal({ dbFile, uiPort: null, namespaces: ['lap'], onSpawn: watch })
  cleanup.defer(() => temporal.stop())
  const sandboxDir = path.join(dir, 'sandboxes')
  cleanup.defer(() => removeSandboxes(sandboxDir))
  const env = await commonEnv(dir, { postgres, temporal, model })
  await runToEnd({ file: path.join(root, 'bin', 'migrate.ts'), env, logFile: path.join(dir, 'logs', 'migrate.log') })
  const kept = cleanup.move()
  return {
    dir,
    sandboxDir,
    postgres,
    temporal,
    model,
    watch,
    start: (settings) => startProcesses({ ...env, ...settings }, watch),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}
