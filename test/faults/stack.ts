import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { openSync } from 'node:fs'
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Pool } from 'pg'
import { createDatabase, migrate } from '../../db/database.ts'
import { freePort } from '../../tools/dev/ports.ts'
import { type RunningPostgres, startPostgres } from '../../tools/dev/postgres.ts'
import { endProcess, type ProcessRecord, recordOf } from '../../tools/dev/process.ts'
import { type RunningTemporal, startTemporal } from '../../tools/dev/temporal.ts'
import { watchOver } from '../servers.ts'
import { until } from '../until.ts'
import { type ScriptedModel, startModel } from './model.ts'
import { processesIn } from './processes.ts'
import { type Proxy, startProxy } from './proxy.ts'

/**
 * The whole platform for one test file: Postgres, Temporal, API and worker processes, local sandboxes with the light harness and a scripted model.
 * All of it is this test's own, so all of it can be killed.
 */

const root = fileURLToPath(new URL('../..', import.meta.url))
const run = promisify(execFile)
/** Without a bundle, a worker bundles its workflows first, on a machine on which everything else goes on. */
const READY_MS = 150_000
export const MASTER_KEY = 'fault-test-key'

export type Reply<T> = { status: number; body: T; headers: Headers }

/** A process of the platform that can be killed and started again, on the same ports. */
export type Part = {
  url: string
  pid(): number
  kill(signal: NodeJS.Signals): Promise<void>
  /** Starts it and resolves when it answers. `changed`: settings that are other ones than before. */
  start(changed?: Record<string, string>): Promise<void>
  log(): Promise<string>
}

export type Stack = AsyncDisposable & {
  dir: string
  sandboxDir: string
  temporalAddress: string
  /** The APIs' way to Temporal. */
  apiTemporal: Proxy
  databaseUrl: string
  model: ScriptedModel
  api(i?: number): Part
  worker(i?: number): Part
  postgres: { stop(): Promise<void>; kill(): Promise<void>; start(): Promise<void> }
  temporal: { stop(): Promise<void>; start(): Promise<void> }
  sql<T extends object>(query: string, params?: unknown[]): Promise<T[]>
  /** A request with the master key; `path` is below `/api/v1/managed_agents` unless it starts with `/api` or `/healthz`. */
  http<T = Record<string, unknown>>(
    method: string,
    path: string,
    body?: unknown,
    options?: { api?: number; headers?: Record<string, string>; signal?: AbortSignal },
  ): Promise<Reply<T>>
  /** Processes of sandboxes that run now. */
  sandboxProcesses(): (ProcessRecord & { command: string })[]
}

const makeRepository = async (dir: string): Promise<string> => {
  await mkdir(dir)
  await writeFile(path.join(dir, 'README.md'), '# Test\n')
  const git = (...args: string[]) =>
    run('git', ['-c', 'user.name=t', '-c', 'user.email=t@t', '-c', 'init.defaultBranch=main', ...args], { cwd: dir })
  await git('init', '-q')
  await git('add', '.')
  await git('commit', '-qm', 'First')
  return `file://${dir}`
}

type PartSpec = {
  name: string
  script: string
  env: Record<string, string>
  url: string
  probe: string
  watch: (record: ProcessRecord) => void
  dir: string
}

const createPart = ({ name, script, env, url, probe, watch, dir }: PartSpec): Part & { end(): Promise<void> } => {
  const logFile = path.join(dir, `${name}.log`)
  let child: ChildProcess | null = null
  let record: ProcessRecord | null = null
  const log = (): Promise<string> => readFile(logFile, 'utf8').catch(() => '')
  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    if (record === null) return
    await endProcess(record, signal, 30_000)
    record = null
  }
  return {
    url,
    pid: () => record?.pid ?? 0,
    kill,
    log,
    start: async (changed = {}) => {
      const out = openSync(logFile, 'a')
      Object.assign(env, changed)
      child = spawn(process.execPath, [path.join(root, script)], { cwd: dir, env, stdio: ['ignore', out, out] })
      const started = recordOf(child.pid ?? 0)
      if (started === null) throw new Error(`${name} did not start:\n${await log()}`)
      record = started
      watch(started)
      const answers = async (): Promise<'ended' | 'ready' | null> => {
        if (child?.exitCode !== null) return 'ended'
        return (await fetch(`${url}${probe}`)).ok ? 'ready' : null
      }
      const state = await until(`${name} answers ${probe}`, READY_MS, answers).catch((error: unknown) => error)
      if (state !== 'ready') throw new Error(`${name} did not start:\n${(await log()).slice(-1_500)}`, { cause: state })
    },
    end: () => kill('SIGTERM'),
  }
}

const inheritedEnv = (): Record<string, string> =>
  Object.fromEntries(
    ['PATH', 'HOME', 'LANG', 'TMPDIR', 'LAP_CACHE'].flatMap((name) =>
      process.env[name] === undefined ? [] : [[name, process.env[name]]],
    ),
  )

/** The workflow code, bundled once for a run: on a busy machine each start of a worker would wait a minute for it. */
const workflowBundle = (): Record<string, string> => {
  const file = process.env['TEST_WORKFLOW_BUNDLE']
  return file === undefined ? {} : { WORKFLOW_BUNDLE_PATH: file }
}

/** Ends every process that lives in the folder: what the test's own sandboxes left. */
const endAllIn = async (folder: string): Promise<void> => {
  await Promise.all(processesIn(folder).map((record) => endProcess(record, 'SIGKILL', 0)))
}

const at = <T>(parts: T[], i: number): T => {
  const found = parts[i]
  if (found === undefined) throw new Error(`no part ${i}`)
  return found
}

/** With `FAULTS_LOG_DIR` set, what the processes of the platform wrote stays there, one folder a stack. */
const keepLogs = async (dir: string): Promise<void> => {
  const kept = process.env['FAULTS_LOG_DIR']
  if (kept === undefined) return
  const files = (await readdir(dir)).filter((file) => file.endsWith('.log'))
  const target = path.join(kept, path.basename(dir))
  await mkdir(target, { recursive: true })
  await Promise.all(files.map((file) => copyFile(path.join(dir, file), path.join(target, file))))
}

export type Options = {
  apis?: number
  workers?: number
  env?: Record<string, string>
  /** Dynamic configuration of the Temporal server. */
  temporalSettings?: Record<string, string>
}

const startServers = async (
  dir: string,
  settings: Record<string, string>,
): Promise<{ postgres: RunningPostgres; temporal: RunningTemporal }> => {
  // No fsync, but commits are written before they are answered: killing the process loses nothing, and nothing here loses power.
  const [postgres, temporal] = await Promise.all([
    startPostgres({ dir: path.join(dir, 'postgres'), settings: { fsync: 'off', full_page_writes: 'off' } }),
    startTemporal({ dbFile: path.join(dir, 'temporal.db'), uiPort: null, namespaces: ['lap'], settings }),
  ])
  return { postgres, temporal }
}

export const startStack = async (options: Options = {}): Promise<Stack> => {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'lap-faults-'))
  await chmod(dir, 0o755)
  const watch = await watchOver([], dir)
  const sandboxDir = path.join(dir, 'sandboxes')
  await mkdir(sandboxDir)
  const [repository, model, servers] = await Promise.all([
    makeRepository(path.join(dir, 'repository')),
    startModel(),
    startServers(dir, options.temporalSettings ?? {}),
  ])
  let { postgres, temporal } = servers
  watch(postgres.record)
  watch(temporal.record)
  const apiTemporal = await startProxy(temporal.port)
  {
    await using db = await createDatabase({ url: postgres.url })
    await migrate(db)
  }
  const env: Record<string, string> = {
    ...inheritedEnv(),
    DATABASE_URL: postgres.url,
    MASTER_KEY,
    ENCRYPTION_KEY: randomBytes(32).toString('base64'),
    LITELLM_API_BASE: model.url,
    LITELLM_API_KEY: 'sk-test',
    PREINSTALLED_GITHUB_REPO: repository,
    TEMPORAL_ADDRESS: temporal.address,
    SANDBOX_DRIVER: 'local',
    LAP_DATA_DIR: dir,
    LOCAL_SANDBOX_DIR: sandboxDir,
    HARNESS_PATH: path.join(root, 'bench', 'harness'),
    LOG_LEVEL: 'debug',
    ...workflowBundle(),
    ...options.env,
  }
  const part = async (kind: 'api' | 'worker', i: number) => {
    const [port, metricsPort] = [await freePort(), await freePort()]
    const ports: Record<string, string> =
      kind === 'api'
        ? { PORT: String(port), METRICS_PORT: String(metricsPort), TEMPORAL_ADDRESS: `127.0.0.1:${apiTemporal.port}` }
        : { WORKER_METRICS_PORT: String(metricsPort) }
    const url = `http://127.0.0.1:${kind === 'api' ? port : metricsPort}`
    const probe = '/readyz'
    return createPart({
      name: `${kind}-${i}`,
      script: `bin/${kind}.ts`,
      env: { ...env, ...ports },
      url,
      probe,
      watch,
      dir,
    })
  }
  const apis = await Promise.all(Array.from({ length: options.apis ?? 1 }, (_, i) => part('api', i)))
  const workers = await Promise.all(Array.from({ length: options.workers ?? 1 }, (_, i) => part('worker', i)))
  const pool = new Pool({ connectionString: postgres.url, max: 4 })
  pool.on('error', () => undefined)

  const stack: Stack = {
    dir,
    sandboxDir,
    model,
    apiTemporal,
    temporalAddress: temporal.address,
    databaseUrl: postgres.url,
    api: (i = 0) => at(apis, i),
    worker: (i = 0) => at(workers, i),
    postgres: {
      stop: () => postgres.stop(),
      kill: async () => {
        process.kill(postgres.record.pid, 'SIGKILL')
        // Its backends see that it is gone and end by themselves; until then the next one refuses to start.
        await until('its backends have ended', 10_000, () => processesIn(path.join(dir, 'postgres')).length === 0)
      },
      start: async () => {
        postgres = await startPostgres({
          dir: path.join(dir, 'postgres'),
          port: postgres.port,
          settings: { fsync: 'off', full_page_writes: 'off' },
        })
        watch(postgres.record)
      },
    },
    temporal: {
      stop: () => temporal.stop(),
      start: async () => {
        temporal = await startTemporal({ dbFile: path.join(dir, 'temporal.db'), uiPort: null, port: temporal.port })
        watch(temporal.record)
      },
    },
    sql: async <T extends object>(query: string, params: unknown[] = []) => (await pool.query<T>(query, params)).rows,
    http: async (
      method: string,
      route: string,
      body?: unknown,
      more: { api?: number; headers?: Record<string, string>; signal?: AbortSignal } = {},
    ) => {
      const below =
        route.startsWith('/api') || route.startsWith('/healthz') || route.startsWith('/readyz')
          ? route
          : `/api/v1/managed_agents${route}`
      const response = await fetch(`${at(apis, more.api ?? 0).url}${below}`, {
        method,
        headers: { authorization: `Bearer ${MASTER_KEY}`, 'content-type': 'application/json', ...more.headers },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        ...(more.signal === undefined ? {} : { signal: more.signal }),
      })
      const text = await response.text()
      const parsed = text === '' ? null : JSON.parse(text)
      return { status: response.status, body: parsed, headers: response.headers }
    },
    sandboxProcesses: () => processesIn(sandboxDir),
    [Symbol.asyncDispose]: async () => {
      await Promise.all([...apis, ...workers].map((one) => one.end()))
      await endAllIn(sandboxDir)
      await pool.end().catch(() => undefined)
      await Promise.all([temporal.stop(), postgres.stop()])
      await apiTemporal[Symbol.asyncDispose]()
      await model[Symbol.asyncDispose]()
      await keepLogs(dir)
      await rm(dir, { recursive: true, force: true })
    },
  }
  try {
    await Promise.all([...apis, ...workers].map((one) => one.start()))
  } catch (error) {
    await stack[Symbol.asyncDispose]()
    throw error
  }
  return stack
}
