import { accessSync, constants, existsSync, readFileSync, statSync } from 'node:fs'
import { parse } from 'dotenv'
import { z } from 'zod'
import { databaseUrlProblem } from './database-url.ts'
import { labels, objectName, objectNames, quantity, ranges, tolerations } from './kubernetes-rules.ts'

/**
 * Every setting: its rule, its default and an example of a right value. Adding one here needs a line in `.env.example` and a row in
 * `docs/settings.md`; a test compares the three.
 */

type Doc = { example: string; default?: string }
const docs = z.registry<Doc>()

const text = z.string()

/** Whole number in base ten. An empty string never comes here: it counts as unset. */
const integer = (min: number, max: number, unit: string) =>
  text
    .refine((value) => /^\d{1,9}$/.test(value) && Number(value) >= min && Number(value) <= max, {
      error: `must be a whole number of ${unit} from ${min} to ${max}`,
    })
    .transform(Number)

const port = text
  .refine((value) => /^\d{1,5}$/.test(value) && Number(value) <= 65_535, {
    error: 'must be a port number from 0 to 65535 (0: any free port)',
  })
  .transform(Number)

const unprivilegedPort = text
  .refine((value) => /^\d{4,5}$/.test(value) && Number(value) >= 1_024 && Number(value) <= 65_535, {
    error: 'must be a port number from 1024 to 65535',
  })
  .transform(Number)

const oneOf = <const T extends readonly [string, ...string[]]>(values: T) =>
  text.pipe(z.enum(values, { error: `must be one of ${values.join(', ')}` }))

/** Base URL without the slashes at its end, so that paths can be appended. */
const httpUrl = text
  .refine(
    (value) => {
      const url = URL.parse(value)
      return (url?.protocol === 'http:' || url?.protocol === 'https:') && url.search === '' && url.hash === ''
    },
    { error: 'must be an http:// or https:// URL without query and fragment' },
  )
  .transform((value) => value.replace(/\/+$/, ''))

const noEdgeSpace = (value: string): boolean => value === value.trim()
const secret = text.refine(noEdgeSpace, { error: 'must not begin or end with white space' })

const GIT_URL = /^((https?|ssh|git|file):\/\/\S+|[\w.-]+@[\w.-]+:\S+|\/\S+)$/
const gitUrl = text.regex(GIT_URL, { error: 'must be a git URL (https, ssh, git or file) or an absolute path' })

const databaseUrl = text.superRefine((value, context) => {
  const problem = databaseUrlProblem(value)
  if (problem !== null) context.addIssue({ code: 'custom', message: problem })
})

const encryptionKey = text
  .refine(
    (value) => {
      const bytes = Buffer.from(value, 'base64')
      return bytes.length === 32 && bytes.toString('base64').replace(/=+$/, '') === value.replace(/=+$/, '')
    },
    { error: 'must be the base64 form of exactly 32 bytes (openssl rand -base64 32)' },
  )
  .transform((value) => Buffer.from(value, 'base64'))

const dnsLabel = text.regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, {
  error: 'must be a DNS label: lower-case letters, digits and hyphens, at most 63',
})
const hostPort = text.regex(/^(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}$/, { error: 'must be host:port, without a scheme' })
const host = text.regex(/^[\w.:-]+$/, { error: 'must be a host name or an IP address' })
const image = text.regex(/^\S+$/, { error: 'must be an image reference without white space' })
const bucket = text.regex(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/, {
  error: 'must be the name of a bucket: 3 to 63 lower-case letters, digits, dots and hyphens',
})
const keyPrefix = text.regex(/^[\w.-]+(\/[\w.-]+)*$/, {
  error: 'must be a path of letters, digits, dots, hyphens and underscores, without a slash at its ends',
})
const flag = oneOf(['true', 'false']).transform((value) => value === 'true')
export const isReadable = (file: string): boolean => {
  try {
    accessSync(file, constants.R_OK)
    return statSync(file).isFile()
  } catch {
    return false
  }
}
const readableFile = text.refine(isReadable, { error: 'must be the path of a file that this process can read' })

/** A rule reads the text of a variable. */
type Rule = z.ZodType<unknown, string>

const documented = <T extends z.ZodType>(rule: T, doc: Doc): T => {
  docs.add(rule, doc)
  return rule
}
const required = <T extends Rule>(rule: T, example: string) => documented(text.pipe(rule), { example })
const optional = <T extends Rule>(rule: T, example: string) => documented(rule.optional(), { example })
const withDefault = <T extends Rule>(rule: T, value: string) =>
  documented(text.prefault(value).pipe(rule), { example: value, default: value })

export const envSchema = z.object({
  DATABASE_URL: required(databaseUrl, 'postgresql://lap:password@localhost:5432/lap'),
  MASTER_KEY: required(secret.min(8, { error: 'must have at least 8 characters' }), 'lap-0f3c9a…'),
  LITELLM_API_BASE: required(httpUrl, 'https://litellm.example.com'),
  LITELLM_API_KEY: required(secret, 'sk-…'),
  PREINSTALLED_GITHUB_REPO: required(gitUrl, 'https://github.com/BerriAI/litellm'),

  NODE_ENV: withDefault(text, 'development'),
  LOG_LEVEL: withDefault(oneOf(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']), 'info'),
  HOST: withDefault(host, '127.0.0.1'),
  PORT: withDefault(port, '3000'),
  METRICS_PORT: withDefault(port, '9090'),
  WORKER_METRICS_PORT: withDefault(port, '9091'),
  // Its default follows RENDER_EXTERNAL_URL and PORT.
  BASE_URL: documented(httpUrl.optional(), { example: 'https://lap.example.com', default: 'http://localhost:3000' }),
  RENDER_EXTERNAL_URL: optional(httpUrl, 'https://lap.onrender.com'),
  UI_USERNAME: withDefault(text, 'admin'),
  ENCRYPTION_KEY: optional(encryptionKey, 'q3Zt8X…Jw0='),

  WARM_POOL_SIZE: withDefault(integer(0, 10_000, 'sandboxes'), '2'),
  WARM_POOL_MAX_PROVISIONING: withDefault(integer(1, 1_000, 'sandboxes'), '2'),
  WARM_POOL_TTL_MINUTES: withDefault(integer(1, 10_080, 'minutes'), '30'),
  WARM_POOL_RECENT_AGENT_HOURS: withDefault(integer(1, 8_760, 'hours'), '24'),
  SESSION_IDLE_TIMEOUT_MINUTES: withDefault(integer(1, 10_080, 'minutes'), '30'),
  SESSION_MAX_HOURS: withDefault(integer(1, 720, 'hours'), '24'),
  PERMISSION_TIMEOUT_MINUTES: withDefault(integer(1, 43_200, 'minutes'), '60'),

  CHECKPOINT_STORE: withDefault(oneOf(['postgres', 's3']), 'postgres'),
  CHECKPOINT_MAX_MIB: withDefault(integer(1, 256, 'MiB'), '64'),
  CHECKPOINT_RETENTION_HOURS: withDefault(integer(0, 8_760, 'hours'), '24'),
  CHECKPOINT_S3_BUCKET: optional(bucket, 'lap-checkpoints'),
  CHECKPOINT_S3_PREFIX: withDefault(keyPrefix, 'checkpoints'),
  CHECKPOINT_S3_REGION: withDefault(dnsLabel, 'us-east-1'),
  CHECKPOINT_S3_ENDPOINT: optional(httpUrl, 'https://s3.example.com'),
  CHECKPOINT_S3_PATH_STYLE: withDefault(flag, 'false'),
  CHECKPOINT_S3_ACCESS_KEY_ID: optional(secret, 'AKIA…'),
  CHECKPOINT_S3_SECRET_ACCESS_KEY: optional(secret, 'wJalr…'),

  TEMPORAL_ADDRESS: withDefault(hostPort, 'localhost:7233'),
  TEMPORAL_NAMESPACE: withDefault(text, 'lap'),
  TEMPORAL_API_KEY: optional(secret, 'eyJ…'),
  TEMPORAL_TLS: optional(flag, 'true'),
  TEMPORAL_TLS_SERVER_NAME: optional(host, 'temporal.example.com'),
  TEMPORAL_TLS_SERVER_CA_CERT_PATH: optional(readableFile, '/etc/temporal/ca.pem'),
  TEMPORAL_TLS_CLIENT_CERT_PATH: optional(readableFile, '/etc/temporal/client.pem'),
  TEMPORAL_TLS_CLIENT_KEY_PATH: optional(readableFile, '/etc/temporal/client.key'),
  WORKFLOW_BUNDLE_PATH: optional(readableFile, '/opt/lap/workflows.bundle.js'),
  TEMPORAL_UI_URL: optional(httpUrl, 'https://temporal-ui.example.com'),

  SANDBOX_DRIVER: withDefault(oneOf(['kubernetes', 'local']), 'kubernetes'),
  LAP_DATA_DIR: withDefault(text, '.lap'),
  LOCAL_SANDBOX_DIR: optional(text, '/var/lib/lap/sandboxes'),
  LOCAL_SANDBOX_HOST: withDefault(host, '127.0.0.1'),
  LOCAL_SANDBOX_LISTEN: withDefault(host, '127.0.0.1'),
  HARNESS_PATH: optional(text, '/opt/harnesses:/home/me/harnesses'),
  K8S_HARNESS_IMAGE: withDefault(image, 'opencode-sandbox:dev'),
  K8S_HARNESS_IMAGE_OPENCODE: optional(image, 'registry.example.com/lap/opencode:1.0.0'),
  K8S_HARNESS_IMAGE_CLAUDE_SDK: optional(image, 'registry.example.com/lap/claude-sdk:1.0.0'),
  K8S_HARNESS_IMAGE_CLAUDE_CODE: optional(image, 'registry.example.com/lap/claude-code:1.0.0'),
  K8S_HARNESS_IMAGE_CODEX: optional(image, 'registry.example.com/lap/codex:1.0.0'),
  K8S_HARNESS_IMAGE_QWEN_CODE: optional(image, 'registry.example.com/lap/qwen-code:1.0.0'),
  K8S_NAMESPACE: withDefault(dnsLabel, 'default'),
  K8S_IMAGE_PULL_POLICY: withDefault(oneOf(['Never', 'IfNotPresent', 'Always']), 'Never'),
  K8S_SANDBOX_API: withDefault(oneOf(['sandbox', 'pod']), 'sandbox'),
  K8S_INSTANCE: withDefault(dnsLabel, 'lap'),
  K8S_ACCESS: optional(oneOf(['nodeport', 'pod-ip']), 'nodeport'),
  K8S_NODE_HOST: optional(host, 'node.example.com'),
  K8S_SUPERVISOR_PORT: withDefault(unprivilegedPort, '4090'),
  K8S_UNSCHEDULABLE_GRACE_SECONDS: withDefault(integer(0, 3_600, 'seconds'), '3'),
  K8S_SANDBOX_CPU_REQUEST: withDefault(quantity, '250m'),
  K8S_SANDBOX_CPU_LIMIT: withDefault(quantity, '2'),
  K8S_SANDBOX_MEMORY_REQUEST: withDefault(quantity, '512Mi'),
  K8S_SANDBOX_MEMORY_LIMIT: withDefault(quantity, '4Gi'),
  K8S_SANDBOX_WORK_SIZE: withDefault(quantity, '10Gi'),
  K8S_PRIORITY_CLASS: optional(objectName, 'lap-sandbox'),
  K8S_RUNTIME_CLASS: optional(objectName, 'gvisor'),
  K8S_SERVICE_ACCOUNT: optional(objectName, 'lap-sandbox'),
  K8S_NODE_SELECTOR: optional(labels, 'disk=ssd,pool=agents'),
  K8S_TOLERATIONS: optional(tolerations, '[{"key":"agents","operator":"Exists","effect":"NoSchedule"}]'),
  K8S_IMAGE_PULL_SECRETS: optional(objectNames, 'registry-key'),
  K8S_EGRESS_BLOCKED: withDefault(
    ranges,
    '10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,169.254.0.0/16,fc00::/7,fe80::/10',
  ),
  K8S_EGRESS_ALLOW: optional(ranges, '10.20.0.0/24,fd00:20::/64'),
  K8S_DNS_POD_LABELS: withDefault(labels, 'k8s-app=kube-dns'),
  // Read by the client library of Kubernetes.
  KUBECONFIG: optional(text, '/home/me/.kube/config'),

  WEBHOOK_ALLOW_PRIVATE_TARGETS: withDefault(flag, 'false'),
  WEBHOOK_RETENTION_DAYS: withDefault(integer(1, 3_650, 'days'), '30'),

  LINEAR_CLIENT_ID: optional(text, '0f3c…'),
  LINEAR_CLIENT_SECRET: optional(secret, '9a1b…'),
  LINEAR_WEBHOOK_SECRET: optional(secret, 'lin_wh_…'),
})

export type Env = z.output<typeof envSchema>

/** Settings whose names are free: the rest of the name is the variable inside the sandbox. */
export const CONTAINER_ENV_PREFIX = 'CONTAINER_ENV_'

/** A right line for a setting. */
export const exampleOf = (name: string): string => {
  const rule = (envSchema.shape as Record<string, z.ZodType>)[name]
  return rule === undefined
    ? `${CONTAINER_ENV_PREFIX}HTTP_PROXY=http://proxy:3128`
    : `${name}=${docs.get(rule)?.example}`
}

/** Names of all settings with their default, in the order of `.env.example`; `null`: none, or made from others. */
export const settingDefaults = (): { name: string; required: boolean; default: string | null }[] =>
  Object.entries(envSchema.shape as Record<string, z.ZodType>).map(([name, rule]) => ({
    name,
    required: !rule.safeParse(undefined).success,
    default: docs.get(rule)?.default ?? null,
  }))

/**
 * The environment of this process; outside production, what `.env` at the root says besides. A variable of the process wins, unless it is
 * empty.
 */
export const readEnv = (root: string): Record<string, string | undefined> => {
  const own = process.env
  const file = `${root}/.env`
  if (own['NODE_ENV'] === 'production' || !existsSync(file)) return { ...own }
  const given = Object.fromEntries(Object.entries(own).filter(([, value]) => value !== ''))
  return { ...parse(readFileSync(file)), ...given }
}
