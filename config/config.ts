import path from 'node:path'
import { gatewayRoot } from '../domain/gateway.ts'
import { type CheckpointConfig, checkpointOf, checkpointProblems } from './checkpoint.ts'
import { CONTAINER_ENV_PREFIX, type Env, envSchema } from './env.ts'
import { type KubernetesConfig, kubernetesOf, kubernetesProblems, podSettingsOf } from './kubernetes.ts'
import { ConfigError, type Given, schemaProblems, type SettingProblem } from './problems.ts'
import { type TemporalConfig, temporalOf, temporalProblems } from './temporal.ts'

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS

/** Settings of the platform, validated. API and worker use the same ones. */
export type Config = {
  nodeEnv: string
  logLevel: string
  host: string
  /** 0: any free port. */
  port: number
  metricsPort: number
  /** Metrics of the worker: another port, so that both may run on one machine. */
  workerMetricsPort: number
  /** Public URL without a slash at its end. */
  baseUrl: string
  uiUsername: string
  databaseUrl: string
  masterKey: string
  encryptionKey: Buffer | null
  /** `apiBase` without slash or `/v1` at its end, which clients of the gateway add. */
  litellm: { apiBase: string; apiKey: string }
  preinstalledRepo: string
  temporal: TemporalConfig
  pool: { size: number; maxProvisioning: number; ttlMs: number; recentAgentHours: number }
  session: { idleTimeoutMs: number; maxAgeMs: number; permissionTimeoutMs: number }
  checkpoint: CheckpointConfig
  /** `CONTAINER_ENV_*`, prefix stripped. */
  containerEnv: Record<string, string>
  harness: {
    /** Harness id → image of a new agent with that harness. */
    images: Record<string, string>
    /** Of harnesses that are not among these, such as those of `path`. */
    defaultImage: string
    /** Absolute folders with further harness folders in them. */
    path: string[]
  }
  k8s: KubernetesConfig
  /** What all sandboxes of this driver have in common, and so is part of what each is made from; null: nothing. */
  podSettings: ReturnType<typeof podSettingsOf> | null
  sandbox: {
    driver: 'local' | 'kubernetes'
    localDir: string
    /** Host under which local sandboxes are reached. */
    localHost: string
    /** Address on which they listen. */
    localListen: string
  }
  /** Absolute. */
  dataDir: string
  webhooks: {
    /** To addresses that are not public, and without TLS. */
    allowPrivate: boolean
    /** Deliveries that are over are kept for this long. */
    retentionMs: number
  }
  linear: { clientId: string; clientSecret: string; webhookSecret: string } | null
  /** Sentences to log at every start. */
  warnings: string[]
}

/** Rules over several settings; they look at the text, so that they are reported together with the others. */
const crossProblems = (given: Given): SettingProblem[] => {
  const problems: SettingProblem[] = []
  if (given['NODE_ENV'] === 'production' && given['ENCRYPTION_KEY'] === undefined)
    problems.push({
      key: 'ENCRYPTION_KEY',
      reason: 'is required when NODE_ENV is production: 32 bytes as base64 (openssl rand -base64 32)',
    })
  return [...problems, ...temporalProblems(given), ...checkpointProblems(given), ...kubernetesProblems(given)]
}

const containerEnvOf = (given: Given): { env: Record<string, string>; problems: SettingProblem[] } => {
  const env: Record<string, string> = {}
  const problems: SettingProblem[] = []
  for (const [key, value] of Object.entries(given)) {
    if (!key.startsWith(CONTAINER_ENV_PREFIX) || value === undefined) continue
    const name = key.slice(CONTAINER_ENV_PREFIX.length)
    if (/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) env[name] = value
    else problems.push({ key, reason: `must name a variable after ${CONTAINER_ENV_PREFIX}` })
  }
  return { env, problems }
}

const LINEAR = ['LINEAR_CLIENT_ID', 'LINEAR_CLIENT_SECRET', 'LINEAR_WEBHOOK_SECRET'] as const

const warningsOf = (env: Env, containerEnv: Record<string, string>): string[] => {
  const warnings: string[] = []
  if (env.ENCRYPTION_KEY === undefined)
    warnings.push('ENCRYPTION_KEY is not set: secrets of agents and OAuth tokens are stored as plain text.')
  const missing = LINEAR.filter((key) => env[key] === undefined)
  if (missing.length > 0 && missing.length < LINEAR.length)
    warnings.push(`Linear stays off: ${missing.join(' and ')} ${missing.length === 1 ? 'is' : 'are'} not set.`)
  for (const name of Object.keys(containerEnv))
    if (/(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$/i.test(name))
      warnings.push(`${CONTAINER_ENV_PREFIX}${name} looks like a secret: agents can read it.`)
  return warnings
}

const linearOf = (env: Env): Config['linear'] => {
  const { LINEAR_CLIENT_ID: clientId, LINEAR_CLIENT_SECRET: clientSecret, LINEAR_WEBHOOK_SECRET: webhookSecret } = env
  if (clientId === undefined || clientSecret === undefined || webhookSecret === undefined) return null
  return { clientId, clientSecret, webhookSecret }
}

const harnessImages = (env: Env): Record<string, string> => ({
  opencode: env.K8S_HARNESS_IMAGE_OPENCODE ?? env.K8S_HARNESS_IMAGE,
  'claude-agent-sdk': env.K8S_HARNESS_IMAGE_CLAUDE_SDK ?? env.K8S_HARNESS_IMAGE,
  'claude-code': env.K8S_HARNESS_IMAGE_CLAUDE_CODE ?? env.K8S_HARNESS_IMAGE,
  codex: env.K8S_HARNESS_IMAGE_CODEX ?? env.K8S_HARNESS_IMAGE,
  'qwen-code': env.K8S_HARNESS_IMAGE_QWEN_CODE ?? env.K8S_HARNESS_IMAGE,
  'codex-terminal': env.K8S_HARNESS_IMAGE_CODEX ?? env.K8S_HARNESS_IMAGE,
})

const sandboxOf = (env: Env, dataDir: string): Config['sandbox'] => ({
  driver: env.SANDBOX_DRIVER,
  localDir: path.resolve(env.LOCAL_SANDBOX_DIR ?? path.join(dataDir, 'sandboxes')),
  localHost: env.LOCAL_SANDBOX_HOST,
  localListen: env.LOCAL_SANDBOX_LISTEN,
})

/**
 * Validates all settings at once. An empty string counts as unset.
 * @throws ConfigError with every wrong setting
 */
export const loadConfig = (raw: Given): Config => {
  const given = Object.fromEntries(Object.entries(raw).filter(([, value]) => value !== undefined && value !== ''))
  const containerEnv = containerEnvOf(given)
  const problems = [...schemaProblems(given), ...crossProblems(given), ...containerEnv.problems]
  if (problems.length > 0) throw new ConfigError(problems)
  const env = envSchema.parse(given)
  const dataDir = path.resolve(env.LAP_DATA_DIR)
  const k8s = kubernetesOf(env)
  return {
    nodeEnv: env.NODE_ENV,
    logLevel: env.LOG_LEVEL,
    host: env.HOST,
    port: env.PORT,
    metricsPort: env.METRICS_PORT,
    workerMetricsPort: env.WORKER_METRICS_PORT,
    baseUrl: env.BASE_URL ?? env.RENDER_EXTERNAL_URL ?? `http://localhost:${env.PORT}`,
    uiUsername: env.UI_USERNAME,
    databaseUrl: env.DATABASE_URL,
    masterKey: env.MASTER_KEY,
    encryptionKey: env.ENCRYPTION_KEY ?? null,
    litellm: { apiBase: gatewayRoot(env.LITELLM_API_BASE), apiKey: env.LITELLM_API_KEY },
    preinstalledRepo: env.PREINSTALLED_GITHUB_REPO,
    temporal: temporalOf(env),
    pool: {
      size: env.WARM_POOL_SIZE,
      maxProvisioning: env.WARM_POOL_MAX_PROVISIONING,
      ttlMs: env.WARM_POOL_TTL_MINUTES * MINUTE_MS,
      recentAgentHours: env.WARM_POOL_RECENT_AGENT_HOURS,
    },
    session: {
      idleTimeoutMs: env.SESSION_IDLE_TIMEOUT_MINUTES * MINUTE_MS,
      maxAgeMs: env.SESSION_MAX_HOURS * HOUR_MS,
      permissionTimeoutMs: env.PERMISSION_TIMEOUT_MINUTES * MINUTE_MS,
    },
    checkpoint: checkpointOf(env),
    containerEnv: containerEnv.env,
    harness: {
      images: harnessImages(env),
      defaultImage: env.K8S_HARNESS_IMAGE,
      path: (env.HARNESS_PATH ?? '')
        .split(':')
        .filter((folder) => folder !== '')
        .map((folder) => path.resolve(folder)),
    },
    k8s,
    podSettings: env.SANDBOX_DRIVER === 'kubernetes' ? podSettingsOf(k8s) : null,
    sandbox: sandboxOf(env, dataDir),
    dataDir,
    webhooks: {
      allowPrivate: env.WEBHOOK_ALLOW_PRIVATE_TARGETS,
      retentionMs: env.WEBHOOK_RETENTION_DAYS * 24 * HOUR_MS,
    },
    linear: linearOf(env),
    warnings: warningsOf(env, containerEnv.env),
  }
}
