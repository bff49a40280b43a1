import { readFileSync } from 'node:fs'
import path from 'node:path'
import { CONTAINER_ENV_PREFIX, type Env, envSchema, exampleOf, isReadable } from './env.ts'

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
    /** Absolute folders with further harness folders in them. */
    path: string[]
  }
  k8s: KubernetesConfig
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

export type CheckpointConfig = {
  /** Where new ones are stored. */
  store: 'postgres' | 's3'
  /** Of an archive. */
  maxBytes: number
  /** How long checkpoints outlive their session. */
  retentionMs: number
  /** null: no bucket is named. It may be named while `store` is `postgres`, for checkpoints that are there from before. */
  s3: S3Config | null
}

export type S3Config = {
  bucket: string
  /** Without slashes at its ends. */
  prefix: string
  region: string
  /** null: AWS. */
  endpoint: string | null
  pathStyle: boolean
  /** null: whatever the AWS SDK finds: variables, profiles, the role of the pod or of the machine. */
  credentials: { accessKeyId: string; secretAccessKey: string } | null
}

export type KubernetesConfig = {
  namespace: string
  /** Label of all objects of this installation. */
  instance: string
  api: 'sandbox' | 'pod'
  /** null: by where this process runs. */
  access: 'nodeport' | 'pod-ip' | null
  /** Where node ports are reached; null: at the address of the sandbox' node. */
  nodeHost: string | null
  /** Of the supervisor inside the pod. */
  supervisorPort: number
  unschedulableMs: number
  imagePullPolicy: 'Never' | 'IfNotPresent' | 'Always'
  imagePullSecrets: string[]
  resources: { requests: Record<'cpu' | 'memory', string>; limits: Record<'cpu' | 'memory', string> }
  workSize: string
  priorityClassName: string | null
  runtimeClassName: string | null
  serviceAccountName: string | null
  nodeSelector: Record<string, string>
  tolerations: NonNullable<Env['K8S_TOLERATIONS']>
  /** Ranges in CIDR notation, without host bits. */
  egress: {
    /** What no rule of an agent opens. */
    blocked: string[]
    /** What every sandbox reaches. */
    allowed: string[]
    /** Of the pods that are asked for names. */
    dnsPodLabels: Record<string, string>
  }
}

export type TemporalConfig = {
  address: string
  namespace: string
  apiKey: string | null
  /** null: plain connection. The keys are those of Temporal's `TLSConfig`. */
  tls: {
    serverNameOverride?: string
    serverRootCACertificate?: Buffer
    clientCertPair?: { crt: Buffer; key: Buffer }
  } | null
  uiUrl: string | null
  /** File with the bundled workflow code, or null. */
  workflowBundle: string | null
}

export type SettingProblem = { key: string; reason: string }

/** Not one setting but all that are wrong, each with its reason and an example. No value is shown: it may be a secret. */
export class ConfigError extends Error {
  override name = 'ConfigError'
  readonly problems: SettingProblem[]
  constructor(problems: SettingProblem[]) {
    const lines = problems.map(({ key, reason }) => `  ${key} ${reason}\n      for example ${exampleOf(key)}`)
    super(`${problems.length === 1 ? '1 setting is' : `${problems.length} settings are`} wrong:\n${lines.join('\n')}`)
    this.problems = problems
  }
}

type RawEnv = Record<string, string | undefined>

const schemaProblems = (given: RawEnv): SettingProblem[] => {
  const seen = new Set<string>()
  return (envSchema.safeParse(given).error?.issues ?? []).flatMap((issue) => {
    const key = String(issue.path[0])
    if (seen.has(key)) return []
    seen.add(key)
    return [{ key, reason: given[key] === undefined ? 'is required and not set' : issue.message }]
  })
}

/** Rules over several settings; they look at the text, so that they are reported together with the others. */
const crossProblems = (given: RawEnv): SettingProblem[] => {
  const problems: SettingProblem[] = []
  const has = (key: string): boolean => given[key] !== undefined
  if (given['NODE_ENV'] === 'production' && !has('ENCRYPTION_KEY'))
    problems.push({
      key: 'ENCRYPTION_KEY',
      reason: 'is required when NODE_ENV is production: 32 bytes as base64 (openssl rand -base64 32)',
    })
  const [cert, key] = ['TEMPORAL_TLS_CLIENT_CERT_PATH', 'TEMPORAL_TLS_CLIENT_KEY_PATH'] as const
  if (has(cert) && !has(key)) problems.push({ key, reason: `is required with ${cert}` })
  if (has(key) && !has(cert)) problems.push({ key: cert, reason: `is required with ${key}` })
  if (given['TEMPORAL_TLS'] === 'false') {
    const tls = Object.keys(given).find((name) => name.startsWith('TEMPORAL_TLS_'))
    if (tls !== undefined) problems.push({ key: 'TEMPORAL_TLS', reason: `must not be false when ${tls} is set` })
  }
  const [keyId, keySecret] = ['CHECKPOINT_S3_ACCESS_KEY_ID', 'CHECKPOINT_S3_SECRET_ACCESS_KEY'] as const
  if (has(keyId) && !has(keySecret)) problems.push({ key: keySecret, reason: `is required with ${keyId}` })
  if (has(keySecret) && !has(keyId)) problems.push({ key: keyId, reason: `is required with ${keySecret}` })
  if (given['CHECKPOINT_STORE'] === 's3' && !has('CHECKPOINT_S3_BUCKET'))
    problems.push({ key: 'CHECKPOINT_S3_BUCKET', reason: 'is required when CHECKPOINT_STORE is s3' })
  // As kubectl has it: several files, separated by colons, and one that is not there counts as empty. Other programs use it, too.
  const files = given['SANDBOX_DRIVER'] === 'local' ? undefined : given['KUBECONFIG']
  if (files?.split(':').some(isReadable) === false)
    problems.push({ key: 'KUBECONFIG', reason: 'must be the path of a kubeconfig that this process can read' })
  return problems
}

const containerEnvOf = (given: RawEnv): { env: Record<string, string>; problems: SettingProblem[] } => {
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

const temporalOf = (env: Env): TemporalConfig => {
  const { TEMPORAL_TLS_CLIENT_CERT_PATH: cert, TEMPORAL_TLS_CLIENT_KEY_PATH: key } = env
  const { TEMPORAL_TLS_SERVER_CA_CERT_PATH: ca, TEMPORAL_TLS_SERVER_NAME: name } = env
  const anyTls = [cert, key, ca, name].some((value) => value !== undefined)
  const on = env.TEMPORAL_TLS ?? (anyTls || env.TEMPORAL_API_KEY !== undefined)
  return {
    address: env.TEMPORAL_ADDRESS,
    namespace: env.TEMPORAL_NAMESPACE,
    apiKey: env.TEMPORAL_API_KEY ?? null,
    tls: !on
      ? null
      : {
          ...(name === undefined ? {} : { serverNameOverride: name }),
          ...(ca === undefined ? {} : { serverRootCACertificate: readFileSync(ca) }),
          ...(cert === undefined || key === undefined
            ? {}
            : { clientCertPair: { crt: readFileSync(cert), key: readFileSync(key) } }),
        },
    uiUrl: env.TEMPORAL_UI_URL ?? null,
    workflowBundle: env.WORKFLOW_BUNDLE_PATH ?? null,
  }
}

const s3Of = (env: Env): S3Config | null => {
  const { CHECKPOINT_S3_ACCESS_KEY_ID: accessKeyId, CHECKPOINT_S3_SECRET_ACCESS_KEY: secretAccessKey } = env
  if (env.CHECKPOINT_S3_BUCKET === undefined) return null
  return {
    bucket: env.CHECKPOINT_S3_BUCKET,
    prefix: env.CHECKPOINT_S3_PREFIX,
    region: env.CHECKPOINT_S3_REGION,
    endpoint: env.CHECKPOINT_S3_ENDPOINT ?? null,
    pathStyle: env.CHECKPOINT_S3_PATH_STYLE,
    credentials: accessKeyId === undefined || secretAccessKey === undefined ? null : { accessKeyId, secretAccessKey },
  }
}

const checkpointOf = (env: Env): CheckpointConfig => ({
  store: env.CHECKPOINT_STORE,
  maxBytes: env.CHECKPOINT_MAX_MIB * 1_024 * 1_024,
  retentionMs: env.CHECKPOINT_RETENTION_HOURS * HOUR_MS,
  s3: s3Of(env),
})

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

const kubernetesOf = (env: Env): KubernetesConfig => ({
  namespace: env.K8S_NAMESPACE,
  instance: env.K8S_INSTANCE,
  api: env.K8S_SANDBOX_API,
  access: env.K8S_ACCESS ?? null,
  nodeHost: env.K8S_NODE_HOST ?? null,
  supervisorPort: env.K8S_SUPERVISOR_PORT,
  unschedulableMs: env.K8S_UNSCHEDULABLE_GRACE_SECONDS * 1_000,
  imagePullPolicy: env.K8S_IMAGE_PULL_POLICY,
  imagePullSecrets: env.K8S_IMAGE_PULL_SECRETS ?? [],
  resources: {
    requests: { cpu: env.K8S_SANDBOX_CPU_REQUEST, memory: env.K8S_SANDBOX_MEMORY_REQUEST },
    limits: { cpu: env.K8S_SANDBOX_CPU_LIMIT, memory: env.K8S_SANDBOX_MEMORY_LIMIT },
  },
  workSize: env.K8S_SANDBOX_WORK_SIZE,
  priorityClassName: env.K8S_PRIORITY_CLASS ?? null,
  runtimeClassName: env.K8S_RUNTIME_CLASS ?? null,
  serviceAccountName: env.K8S_SERVICE_ACCOUNT ?? null,
  nodeSelector: env.K8S_NODE_SELECTOR ?? {},
  tolerations: env.K8S_TOLERATIONS ?? [],
  egress: {
    blocked: env.K8S_EGRESS_BLOCKED,
    allowed: env.K8S_EGRESS_ALLOW ?? [],
    dnsPodLabels: env.K8S_DNS_POD_LABELS,
  },
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
const gatewayRoot = (url: string): string => url.replace(/\/+$/, '').replace(/\/v1$/, '')

export const loadConfig = (raw: RawEnv): Config => {
  const given = Object.fromEntries(Object.entries(raw).filter(([, value]) => value !== undefined && value !== ''))
  const containerEnv = containerEnvOf(given)
  const problems = [...schemaProblems(given), ...crossProblems(given), ...containerEnv.problems]
  if (problems.length > 0) throw new ConfigError(problems)
  const env = envSchema.parse(given)
  const dataDir = path.resolve(env.LAP_DATA_DIR)
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
      path: (env.HARNESS_PATH ?? '')
        .split(':')
        .filter((folder) => folder !== '')
        .map((folder) => path.resolve(folder)),
    },
    k8s: kubernetesOf(env),
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
