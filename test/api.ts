import { randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import type { ApiDeps } from '../api/deps.ts'
import { startServer } from '../api/server.ts'
import { loadConfig } from '../config/config.ts'
import type { Config } from '../config/config.ts'
import type { AgentRow } from '../db/entities/agent.ts'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import { createListener } from '../db/listen.ts'
import { reservePoolSandbox, sandboxWarm } from '../db/sandboxes.ts'
import { sandboxName } from '../domain/names.ts'
import { createLocalDriver } from '../local/driver.ts'
import type { LocalDriver } from '../local/driver.ts'
import type { SandboxInspector } from '../sandbox/inspector.ts'
import { createSupervisorClient } from '../sandbox/supervisor-client.ts'
import { templateHash, templateOf } from '../sandbox/template.ts'
import { sandboxToken } from '../sandbox/token.ts'
import { createLogger } from '../telemetry/log.ts'
import { createMetrics } from '../telemetry/metrics.ts'
import { createTemporal } from '../temporal/client.ts'
import { createOutboxRelay } from '../temporal/outbox-relay.ts'
import { createSealer } from '../vault/seal.ts'
import { demoRepository } from '../tools/dev/demo-repository.ts'
import { createTestDatabase } from './database.ts'
import type { TestDatabase } from './database.ts'
import { startScriptedModel } from './scripted-model.ts'
import type { ScriptedModel } from './scripted-model.ts'
import { HARNESS_DIRS } from './supervisor.ts'
import { testTemporalAddress } from './temporal.ts'
import { startWorkerProcess } from './worker.ts'

export const TEST_MASTER_KEY = 'a master key for tests'
export const GATEWAY_KEY = 'sk-the-gateway-key'

/** An answer as a test looks at it. */
export type Answer<T> = { status: number; headers: Headers; body: T }
export type Failure = { error: string; code: string; details?: { path: string; message: string }[]; request_id: string }

export type TestApi = AsyncDisposable & {
  url: string
  deps: Omit<ApiDeps, 'drain'>
  database: TestDatabase
  /** What the gateway is. */
  model: ScriptedModel
  /** Where the sandboxes are. */
  driver: LocalDriver
  /** Lines of the log so far. */
  logged: string[]
  /** With `worker`: ends it. */
  stopWorker(): Promise<void>
  /** Ends the server as SIGTERM does. */
  drain(): Promise<void>
  /** One request with the master key; `/…` paths without `/api` are managed resources. */
  call<T = Record<string, unknown>>(
    method: string,
    path: string,
    options?: { body?: unknown; headers?: Record<string, string>; signal?: AbortSignal },
  ): Promise<Answer<T>>
  urlOf(path: string): string
  /** A running, warm sandbox in an agent's pool: a supervisor with its harness, `light` or `shell`. */
  warmSandbox(agentId: string): Promise<SandboxRow>
}

const caller = (url: string): Pick<TestApi, 'call' | 'urlOf'> => {
  const urlOf = (path: string): string =>
    /^\/(api|healthz|readyz|openapi)/.test(path) ? `${url}${path}` : `${url}/api/v1/managed_agents${path}`
  return {
    urlOf,
    async call(method, path, { body, headers = {}, signal } = {}) {
      const response = await fetch(urlOf(path), {
        method,
        headers: { authorization: `Bearer ${TEST_MASTER_KEY}`, ...headers },
        ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
        ...(signal === undefined ? {} : { signal }),
      })
      const text = await response.text()
      const json = response.headers.get('content-type')?.includes('application/json') === true
      return { status: response.status, headers: response.headers, body: json ? JSON.parse(text) : text }
    },
  }
}

const createDriver = (dir: string): LocalDriver =>
  createLocalDriver({
    dir,
    host: '127.0.0.1',
    listen: '127.0.0.1',
    searchPath: process.env['PATH'] ?? '',
    harnessDir: (id) => (id === 'light' || id === 'shell' ? HARNESS_DIRS[id] : undefined),
  })

const warmer =
  ({ config, sql, sealer }: ApiDeps, driver: LocalDriver): TestApi['warmSandbox'] =>
  async (agentId) => {
    const agent = (await sql.one<AgentRow>('select * from agent where id = $1', [agentId]))!
    const { preinstalledRepo, containerEnv, podSettings, masterKey } = config
    const template = templateOf(agent, { preinstalledRepo, containerEnv, podSettings, open: sealer.open })
    const id = randomUUID()
    const names = { id, name: sandboxName(id), agentId, templateHash: templateHash(masterKey, template) }
    const { harness_id: harnessId, harness_image: image } = agent
    await reservePoolSandbox(
      sql,
      { ...names, harnessId, image, driver: 'local' },
      { poolSize: 99, maxProvisioning: 99 },
    )
    await driver.create({
      ...names,
      sandboxId: id,
      purpose: 'pool',
      harnessId,
      image,
      repoUrl: template.repo_url,
      branch: template.branch,
      resources: null,
      allowOut: [],
      denyOut: [],
      setupCommand: template.setup_cmd,
      env: template.env,
      token: sandboxToken(masterKey, id),
    })
    const { endpoint } = await driver.ready(names.name, { deadlineMs: 60_000, signal: AbortSignal.timeout(60_000) })
    return (await sandboxWarm(sql, id, endpoint))!
  }

type Options = {
  /** Settings to change. Without `TEMPORAL_ADDRESS` there is no Temporal to be reached. */
  env?: Record<string, string>
  /** What is asked about sandboxes; without it the supervisors only. */
  inspector?: SandboxInspector
  /** With `bin/worker.ts` beside it, on the Temporal server of the run. */
  worker?: boolean
}

const settings = (
  given: { databaseUrl: string; dir: string; repository: string; model: ScriptedModel },
  { env, worker = false }: Options,
): Record<string, string> => ({
  DATABASE_URL: given.databaseUrl,
  MASTER_KEY: TEST_MASTER_KEY,
  LITELLM_API_BASE: given.model.url,
  LITELLM_API_KEY: given.model.key,
  PREINSTALLED_GITHUB_REPO: given.repository,
  ENCRYPTION_KEY: Buffer.alloc(32, 7).toString('base64'),
  SANDBOX_DRIVER: 'local',
  LAP_DATA_DIR: given.dir,
  LOCAL_SANDBOX_DIR: path.join(given.dir, 'sandboxes'),
  HARNESS_PATH: [HARNESS_DIRS.light, HARNESS_DIRS.shell].map((dir) => path.dirname(dir)).join(':'),
  TEMPORAL_ADDRESS: worker ? testTemporalAddress() : '127.0.0.1:9',
  // Workers share nothing with those of other tests on the same server.
  TEMPORAL_NAMESPACE: worker ? `api-${randomBytes(6).toString('hex')}` : 'lap',
  ...env,
})

type Seen = { logged: string[]; inspector?: SandboxInspector | undefined }

const createDeps = (config: Config, database: TestDatabase, { logged, inspector }: Seen) => {
  const log = createLogger({ level: 'debug', name: 'test', destination: { write: (line) => void logged.push(line) } })
  const metrics = createMetrics()
  const { sql } = database.db
  const stack = new AsyncDisposableStack()
  const temporal = stack.use(createTemporal(config.temporal))
  const deps: Omit<ApiDeps, 'drain'> = {
    config,
    db: database.db,
    sql,
    listener: stack.use(createListener(database.url)),
    temporal,
    outbox: stack.use(createOutboxRelay({ sql, temporal, log, metrics })),
    supervisor: stack.use(createSupervisorClient({ masterKey: config.masterKey })),
    inspector: inspector ?? null,
    sealer: createSealer(config.encryptionKey),
    harnesses: [
      { id: 'light', supportsTui: false },
      { id: 'opencode', supportsTui: false },
      { id: 'shell', supportsTui: true },
    ],
    log,
    metrics,
  }
  return { deps, stack }
}

/** The API as a process has it, over real HTTP, with a database, a gateway and sandboxes of its own. */
export const startTestApi = async (options: Options = {}): Promise<TestApi> => {
  const logged: string[] = []
  const dir = await mkdtemp(path.join(os.tmpdir(), 'lap-api-'))
  const database = await createTestDatabase()
  const model = await startScriptedModel(GATEWAY_KEY)
  const repository = await demoRepository(path.join(dir, 'repository'))
  const env = settings({ databaseUrl: database.url, dir, repository, model }, options)
  const config = loadConfig(env)
  const driver = createDriver(config.sandbox.localDir)
  const { deps, stack } = createDeps(config, database, { logged, inspector: options.inspector })
  const worker = options.worker === true ? await startWorkerProcess(env) : null
  const server = await startServer(deps, { host: '127.0.0.1', port: 0 })
  return {
    url: server.url,
    deps,
    database,
    model,
    driver,
    logged,
    drain: () => server.drain(),
    stopWorker: async () => worker?.stop(),
    ...caller(server.url),
    warmSandbox: warmer(deps as ApiDeps, driver),
    async [Symbol.asyncDispose]() {
      await server.drain()
      await worker?.stop()
      await stack.disposeAsync()
      await driver.removeAll()
      await model[Symbol.asyncDispose]()
      await database[Symbol.asyncDispose]()
      await rm(dir, { recursive: true, force: true })
    },
  }
}
