import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, describe, expect, test } from '@jest/globals'
import { type Config, loadConfig } from './config.ts'
import { readEnv } from './env.ts'
import { ConfigError } from './problems.ts'

const KEY = Buffer.alloc(32, 7).toString('base64')
const required = {
  DATABASE_URL: 'postgresql://lap:hunter2hunter2@db.example.com:5432/lap',
  MASTER_KEY: 'correct-horse',
  LITELLM_API_BASE: 'https://litellm.example.com',
  LITELLM_API_KEY: 'sk-very-secret',
  PREINSTALLED_GITHUB_REPO: 'https://github.com/BerriAI/litellm',
}

const load = (env: Record<string, string | undefined> = {}): Config => loadConfig({ ...required, ...env })
const errorOf = (env: Record<string, string | undefined>): ConfigError => {
  try {
    loadConfig(env)
  } catch (error) {
    if (error instanceof ConfigError) return error
    throw error
  }
  throw new Error('settings were accepted')
}
const reasonsOf = (env: Record<string, string | undefined>): Record<string, string> =>
  Object.fromEntries(errorOf({ ...required, ...env }).problems.map(({ key, reason }) => [key, reason]))

describe('a wrong setting', () => {
  test('is reported together with every other wrong one, each with a reason and an example', () => {
    const error = errorOf({
      DATABASE_URL: 'mysql://x',
      MASTER_KEY: 'short',
      LITELLM_API_BASE: 'litellm.example.com',
      WARM_POOL_SIZE: 'many',
      NODE_ENV: 'production',
      TEMPORAL_TLS_CLIENT_CERT_PATH: import.meta.filename,
      'CONTAINER_ENV_A-B': 'x',
    })
    expect(error.problems.map(({ key }) => key).toSorted()).toEqual([
      'CONTAINER_ENV_A-B',
      'DATABASE_URL',
      'ENCRYPTION_KEY',
      'LITELLM_API_BASE',
      'LITELLM_API_KEY',
      'MASTER_KEY',
      'PREINSTALLED_GITHUB_REPO',
      'TEMPORAL_TLS_CLIENT_KEY_PATH',
      'WARM_POOL_SIZE',
    ])
    for (const { key, reason } of error.problems) expect(error.message).toContain(`${key} ${reason}\n`)
    expect(error.message).toContain('9 settings are wrong')
    expect(error.message).toContain('for example WARM_POOL_SIZE=2')
    expect(error.message.match(/for example [A-Z_0-9]+=\S/g)).toHaveLength(9)
  })

  test('never has its value shown', () => {
    const values = {
      DATABASE_URL: 'postgresql://lap:s3cret-a@db:6432/lap',
      MASTER_KEY: ' s3cret-b',
      LITELLM_API_BASE: 's3cret-c',
      LITELLM_API_KEY: 's3cret-d ',
      PREINSTALLED_GITHUB_REPO: 's3cret-e',
      ENCRYPTION_KEY: 's3cret-f',
      WARM_POOL_SIZE: 's3cret-g',
      SANDBOX_DRIVER: 's3cret-h',
    }
    const error = errorOf(values)
    expect(error.problems).toHaveLength(8)
    expect(JSON.stringify([error.message, error.problems])).not.toContain('s3cret')
  })

  test.each(Object.keys(required))('%s is required, and empty counts as unset', (key) => {
    expect(reasonsOf({ [key]: undefined })).toEqual({ [key]: 'is required and not set' })
    expect(reasonsOf({ [key]: '' })).toEqual({ [key]: 'is required and not set' })
  })
})

describe('whole numbers', () => {
  const integers = [
    ['WARM_POOL_SIZE', 0],
    ['WARM_POOL_MAX_PROVISIONING', 1],
    ['WARM_POOL_TTL_MINUTES', 1],
    ['WARM_POOL_RECENT_AGENT_HOURS', 1],
    ['SESSION_IDLE_TIMEOUT_MINUTES', 1],
    ['SESSION_MAX_HOURS', 1],
    ['PERMISSION_TIMEOUT_MINUTES', 1],
    ['WEBHOOK_RETENTION_DAYS', 1],
    ['CHECKPOINT_MAX_MIB', 1],
    ['CHECKPOINT_RETENTION_HOURS', 0],
    ['PORT', 0],
    ['METRICS_PORT', 0],
    ['WORKER_METRICS_PORT', 0],
  ] as const

  test.each(integers)('%s takes whole numbers from %i only', (key, least) => {
    for (const wrong of ['2.5', 'abc', '-1', '+2', '1e3', '0x10', ' 2', '2 ', '2m', '99999999999', String(least - 1)])
      expect(Object.keys(reasonsOf({ [key]: wrong }))).toEqual([key])
    expect(() => load({ [key]: String(least) })).not.toThrow()
    expect(() => load({ [key]: '' })).not.toThrow()
  })

  test('carry their unit into the reason and become milliseconds', () => {
    expect(reasonsOf({ WARM_POOL_TTL_MINUTES: '0' })['WARM_POOL_TTL_MINUTES']).toContain('minutes')
    const config = load({
      WARM_POOL_TTL_MINUTES: '45',
      SESSION_IDLE_TIMEOUT_MINUTES: '2',
      SESSION_MAX_HOURS: '3',
      PERMISSION_TIMEOUT_MINUTES: '5',
      WEBHOOK_RETENTION_DAYS: '2',
    })
    expect(config.pool.ttlMs).toBe(45 * 60_000)
    expect(config.session).toEqual({ idleTimeoutMs: 120_000, maxAgeMs: 3 * 3_600_000, permissionTimeoutMs: 300_000 })
    expect(config.webhooks).toEqual({ allowPrivate: false, retentionMs: 48 * 3_600_000 })
  })

  test('WARM_POOL_SIZE 0 is a size', () => expect(load({ WARM_POOL_SIZE: '0' }).pool.size).toBe(0))
})

describe('checkpoints', () => {
  test('are kept in Postgres unless told otherwise', () => {
    expect(load({}).checkpoint).toEqual({
      store: 'postgres',
      maxBytes: 64 * 2 ** 20,
      retentionMs: 24 * 3_600_000,
      s3: null,
    })
  })

  test('in S3 need a bucket, and both halves of an access key or none', () => {
    expect(reasonsOf({ CHECKPOINT_STORE: 's3' })).toEqual({
      CHECKPOINT_S3_BUCKET: 'is required when CHECKPOINT_STORE is s3',
    })
    expect(Object.keys(reasonsOf({ CHECKPOINT_S3_ACCESS_KEY_ID: 'a' }))).toEqual(['CHECKPOINT_S3_SECRET_ACCESS_KEY'])
    expect(Object.keys(reasonsOf({ CHECKPOINT_S3_SECRET_ACCESS_KEY: 'a' }))).toEqual(['CHECKPOINT_S3_ACCESS_KEY_ID'])
    const { checkpoint } = load({ CHECKPOINT_STORE: 's3', CHECKPOINT_S3_BUCKET: 'some-bucket' })
    expect(checkpoint).toMatchObject({ store: 's3', s3: { bucket: 'some-bucket', endpoint: null, credentials: null } })
  })

  test.each([
    ['CHECKPOINT_S3_BUCKET', 'Upper'],
    ['CHECKPOINT_S3_PREFIX', '/leading'],
    ['CHECKPOINT_S3_PREFIX', 'trailing/'],
    ['CHECKPOINT_S3_ENDPOINT', 's3.example.com'],
    ['CHECKPOINT_STORE', 'disk'],
  ])('%s is not %s', (key, wrong) => expect(Object.keys(reasonsOf({ [key]: wrong }))).toContain(key))
})

describe('DATABASE_URL', () => {
  test.each([
    'postgresql://lap:x@db:5432/lap',
    'postgres://db/lap',
    'postgresql:///lap?host=/var/run/postgresql',
    'postgresql://lap@db.example.com/lap?sslmode=require',
    'postgresql://lap@aws-0.pooler.supabase.com:5432/lap',
  ])('%s is accepted', (url) => expect(load({ DATABASE_URL: url }).databaseUrl).toBe(url))

  test.each([
    ['postgresql://lap@db:6432/lap', 'port 6432'],
    ['postgresql://lap@aws-0.pooler.supabase.com:6543/lap', 'port 6543'],
    ['postgresql://lap@ep-cool-name-pooler.eu-central-1.aws.neon.tech/lap', '-pooler'],
    ['postgresql://lap@db/lap?pgbouncer=true', 'pgbouncer=true'],
  ])('%s is refused as a pooler', (url, sign) => {
    const reason = reasonsOf({ DATABASE_URL: url })['DATABASE_URL']
    expect(reason).toContain('connection pooler')
    expect(reason).toContain(sign)
  })

  test.each(['mysql://db/lap', 'db:5432', 'postgresql:///lap', 'postgresql://db', 'postgresql://db/'])(
    '%s is refused',
    (url) => expect(Object.keys(reasonsOf({ DATABASE_URL: url }))).toEqual(['DATABASE_URL']),
  )
})

describe('ENCRYPTION_KEY', () => {
  test('is base64 of exactly 32 bytes', () => {
    expect(load({ ENCRYPTION_KEY: KEY }).encryptionKey).toEqual(Buffer.alloc(32, 7))
    for (const wrong of [
      'abc',
      Buffer.alloc(31).toString('base64'),
      Buffer.alloc(33).toString('base64'),
      `${KEY}!`,
      'a'.repeat(32),
    ])
      expect(Object.keys(reasonsOf({ ENCRYPTION_KEY: wrong }))).toEqual(['ENCRYPTION_KEY'])
  })

  test('warns when unset, and is an error in production', () => {
    expect(load().encryptionKey).toBeNull()
    expect(load().warnings.join()).toContain('ENCRYPTION_KEY is not set')
    expect(load({ ENCRYPTION_KEY: KEY }).warnings).toEqual([])
    expect(reasonsOf({ NODE_ENV: 'production' })['ENCRYPTION_KEY']).toContain('production')
    expect(() => load({ NODE_ENV: 'production', ENCRYPTION_KEY: KEY })).not.toThrow()
  })
})

describe('choices and texts', () => {
  test.each([
    ['LOG_LEVEL', 'verbose'],
    ['SANDBOX_DRIVER', 'docker'],
    ['K8S_IMAGE_PULL_POLICY', 'always'],
    ['K8S_NAMESPACE', 'My_Space'],
    ['K8S_HARNESS_IMAGE', 'a b'],
    ['HOST', 'http://0.0.0.0'],
    ['BASE_URL', 'lap.example.com'],
    ['RENDER_EXTERNAL_URL', 'ftp://x'],
    ['LITELLM_API_BASE', 'https://x/?a=b'],
    ['MASTER_KEY', 'seven77'],
    ['MASTER_KEY', 'trailing-newline\n'],
    ['PREINSTALLED_GITHUB_REPO', 'litellm'],
    ['TEMPORAL_ADDRESS', 'http://temporal:7233'],
    ['TEMPORAL_ADDRESS', 'temporal'],
    ['TEMPORAL_TLS', 'yes'],
    ['TEMPORAL_UI_URL', 'temporal:8233'],
    ['TEMPORAL_TLS_SERVER_CA_CERT_PATH', '/nowhere/ca.pem'],
    ['TEMPORAL_TLS_SERVER_CA_CERT_PATH', import.meta.dirname],
    ['CONTAINER_ENV_', 'x'],
    ['CONTAINER_ENV_1A', 'x'],
  ])('%s=%j is refused', (key, value) => expect(Object.keys(reasonsOf({ [key]: value }))).toEqual([key]))

  test.each([
    'https://github.com/o/r.git',
    'git@github.com:o/r.git',
    'ssh://git@host/r',
    'file:///srv/r',
    'git://host/r',
    '/srv/r',
  ])('PREINSTALLED_GITHUB_REPO=%s is accepted', (url) =>
    expect(load({ PREINSTALLED_GITHUB_REPO: url }).preinstalledRepo).toBe(url),
  )
})

describe('settings made from several', () => {
  test('BASE_URL comes before RENDER_EXTERNAL_URL, and else follows the port', () => {
    expect(load().baseUrl).toBe('http://localhost:3000')
    expect(load({ PORT: '4000' }).baseUrl).toBe('http://localhost:4000')
    expect(load({ RENDER_EXTERNAL_URL: 'https://r.onrender.com/' }).baseUrl).toBe('https://r.onrender.com')
    expect(load({ RENDER_EXTERNAL_URL: 'https://r.onrender.com', BASE_URL: 'https://b/lap/' }).baseUrl).toBe(
      'https://b/lap',
    )
  })

  test('a harness without an image of its own has the common one', () => {
    expect(load({ K8S_HARNESS_IMAGE: 'all:1', K8S_HARNESS_IMAGE_CLAUDE_SDK: 'sdk:2' }).harness.images).toEqual({
      opencode: 'all:1',
      'claude-agent-sdk': 'sdk:2',
      'claude-code': 'all:1',
      codex: 'all:1',
      'qwen-code': 'all:1',
      'codex-terminal': 'all:1',
    })
  })

  test('CONTAINER_ENV_* goes into sandboxes without its prefix, and one that looks like a secret is warned about', () => {
    const config = load({
      CONTAINER_ENV_HTTP_PROXY: 'http://p',
      CONTAINER_ENV_API_TOKEN: 't0k',
      CONTAINER_ENV_EMPTY: '',
    })
    expect(config.containerEnv).toEqual({ HTTP_PROXY: 'http://p', API_TOKEN: 't0k' })
    expect(config.warnings.join()).toContain('CONTAINER_ENV_API_TOKEN')
    expect(config.warnings.join()).not.toContain('t0k')
  })

  test('Linear needs all three of its settings, and says so when some are there', () => {
    const all = { LINEAR_CLIENT_ID: 'a', LINEAR_CLIENT_SECRET: 'b', LINEAR_WEBHOOK_SECRET: 'c' }
    expect(load(all).linear).toEqual({ clientId: 'a', clientSecret: 'b', webhookSecret: 'c' })
    expect(load().linear).toBeNull()
    const partial = load({ ...all, LINEAR_WEBHOOK_SECRET: '' })
    expect(partial.linear).toBeNull()
    expect(partial.warnings.join()).toContain('LINEAR_WEBHOOK_SECRET is not set')
  })

  test('directories are absolute, and local sandboxes lie in the data directory', () => {
    const config = load({ LAP_DATA_DIR: '/srv/lap', HARNESS_PATH: '/a:/b:' })
    expect(config.dataDir).toBe('/srv/lap')
    expect(config.sandbox.localDir).toBe('/srv/lap/sandboxes')
    expect(config.harness.path).toEqual(['/a', '/b'])
    expect(load({ LOCAL_SANDBOX_DIR: '/x' }).sandbox.localDir).toBe('/x')
    expect(path.isAbsolute(load().dataDir)).toBe(true)
  })
})

describe('the connection to Temporal', () => {
  const file = import.meta.filename

  test('is plain unless TLS is asked for or implied', () => {
    expect(load().temporal).toEqual({
      address: 'localhost:7233',
      namespace: 'lap',
      apiKey: null,
      tls: null,
      uiUrl: null,
      workflowBundle: null,
    })
    expect(load({ TEMPORAL_TLS: 'true' }).temporal.tls).toEqual({})
    expect(load({ TEMPORAL_API_KEY: 'k' }).temporal).toMatchObject({ apiKey: 'k', tls: {} })
    expect(load({ TEMPORAL_TLS_SERVER_NAME: 't.example.com' }).temporal.tls).toEqual({
      serverNameOverride: 't.example.com',
    })
  })

  test('reads the certificates', () => {
    const tls = load({
      TEMPORAL_TLS_SERVER_CA_CERT_PATH: file,
      TEMPORAL_TLS_CLIENT_CERT_PATH: file,
      TEMPORAL_TLS_CLIENT_KEY_PATH: file,
    }).temporal.tls
    expect(tls?.serverRootCACertificate?.toString()).toContain('reads the certificates')
    expect(tls?.clientCertPair?.key).toEqual(tls?.clientCertPair?.crt)
  })

  test('needs both halves of a client certificate, and no contradiction', () => {
    expect(reasonsOf({ TEMPORAL_TLS_CLIENT_CERT_PATH: file })).toHaveProperty('TEMPORAL_TLS_CLIENT_KEY_PATH')
    expect(reasonsOf({ TEMPORAL_TLS_CLIENT_KEY_PATH: file })).toHaveProperty('TEMPORAL_TLS_CLIENT_CERT_PATH')
    expect(reasonsOf({ TEMPORAL_TLS: 'false', TEMPORAL_TLS_SERVER_NAME: 'x' })).toHaveProperty('TEMPORAL_TLS')
  })
})

describe('.env', () => {
  const before = { ...process.env }
  const root = mkdtempSync(path.join(tmpdir(), 'lap-env-'))
  afterEach(() => {
    for (const name of ['LAP_TEST_A', 'LAP_TEST_B', 'NODE_ENV']) delete process.env[name]
    Object.assign(process.env, before)
    rmSync(path.join(root, '.env'), { force: true })
  })

  test('is read besides the environment, which wins unless empty', () => {
    writeFileSync(path.join(root, '.env'), 'LAP_TEST_A=file\nLAP_TEST_B=file\n')
    Object.assign(process.env, { LAP_TEST_A: 'own', LAP_TEST_B: '' })
    expect(readEnv(root)).toMatchObject({ LAP_TEST_A: 'own', LAP_TEST_B: 'file' })
  })

  test('is not read in production', () => {
    writeFileSync(path.join(root, '.env'), 'LAP_TEST_A=file\n')
    process.env['NODE_ENV'] = 'production'
    expect(readEnv(root)['LAP_TEST_A']).toBeUndefined()
  })
})
