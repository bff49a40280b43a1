import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createApp } from '../api/app.ts'
import type { ApiDeps } from '../api/deps.ts'
import { loadConfig } from '../config/config.ts'
import type { Config } from '../config/config.ts'
import { createListener } from '../db/listen.ts'
import { createSupervisorClient } from '../sandbox/supervisor-client.ts'
import { createLogger } from '../telemetry/log.ts'
import { createMetrics } from '../telemetry/metrics.ts'
import { createOutboxRelay } from '../temporal/outbox-relay.ts'
import { createTemporal } from '../temporal/client.ts'
import { createSealer } from '../vault/seal.ts'
import { createTestDatabase } from './database.ts'
import type { TestDatabase } from './database.ts'

export const TEST_MASTER_KEY = 'a-master-key-for-tests'

/** An answer as a test looks at it. */
export type Answer<T> = { status: number; headers: Headers; body: T }

export type TestApi = AsyncDisposable & {
  url: string
  deps: ApiDeps
  database: TestDatabase
  /** Lines of the log so far. */
  logged: string[]
  /** Says that the process is ending, as SIGTERM does. */
  drain(): void
  /** One request with the master key; `/…` paths without `/api` are managed resources. */
  call<T = Record<string, unknown>>(
    method: string,
    path: string,
    options?: { body?: unknown; headers?: Record<string, string>; signal?: AbortSignal },
  ): Promise<Answer<T>>
  urlOf(path: string): string
}

/** Settings with everything that is required, for a sandbox driver of this machine. */
export const testConfig = (databaseUrl: string, env: Record<string, string> = {}): Config =>
  loadConfig({
    DATABASE_URL: databaseUrl,
    MASTER_KEY: TEST_MASTER_KEY,
    LITELLM_API_BASE: 'http://127.0.0.1:9',
    LITELLM_API_KEY: 'sk-the-gateway-key',
    PREINSTALLED_GITHUB_REPO: 'https://example.com/repo.git',
    ENCRYPTION_KEY: Buffer.alloc(32, 7).toString('base64'),
    SANDBOX_DRIVER: 'local',
    TEMPORAL_ADDRESS: '127.0.0.1:9',
    ...env,
  })

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

/**
 * The API as a process has it, over real HTTP, with a database of its own.
 * @param env settings to change; without `TEMPORAL_ADDRESS` there is no Temporal to be reached
 */
export const startTestApi = async (env: Record<string, string> = {}): Promise<TestApi> => {
  const logged: string[] = []
  const database = await createTestDatabase()
  const config = testConfig(database.url, env)
  const log = createLogger({ level: 'debug', name: 'test', destination: { write: (line) => void logged.push(line) } })
  const metrics = createMetrics()
  const { db } = database
  const listener = createListener(database.url)
  const supervisor = createSupervisorClient({ masterKey: config.masterKey })
  const temporal = createTemporal(config.temporal)
  const outbox = createOutboxRelay({ sql: db.sql, temporal, log, metrics })
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
    harnesses: [{ id: 'opencode' }, { id: 'light' }],
    log,
    metrics,
    drain: draining.signal,
  }
  const handle = createApp(deps).callback()
  const server = createServer((req, res) => void handle(req, res))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url,
    deps,
    database,
    logged,
    drain: () => draining.abort(),
    ...caller(url),
    async [Symbol.asyncDispose]() {
      draining.abort()
      server.close()
      server.closeAllConnections()
      await outbox[Symbol.asyncDispose]()
      await temporal[Symbol.asyncDispose]()
      await supervisor[Symbol.asyncDispose]()
      await listener[Symbol.asyncDispose]()
      await database[Symbol.asyncDispose]()
    },
  }
}
