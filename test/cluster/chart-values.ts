import type { Values } from './helm.ts'
import { LEAST } from './helm.ts'

/** Long and unlike anything else, to be found again wherever it should not be. */
export const SECRETS = {
  DATABASE_URL: 'postgresql://lap:5ecret-database@db.example.com:5432/lap',
  MASTER_KEY: '5ecret-master-key',
  ENCRYPTION_KEY: Buffer.alloc(32, 7).toString('base64'),
  LITELLM_API_KEY: 'sk-5ecret-litellm',
  TEMPORAL_API_KEY: '5ecret-temporal',
  CHECKPOINT_S3_SECRET_ACCESS_KEY: '5ecret-s3',
  LINEAR_CLIENT_SECRET: '5ecret-linear-client',
  LINEAR_WEBHOOK_SECRET: '5ecret-linear-webhook',
}

/** The least with a Secret of the release's own. */
export const WITH_SECRETS: Values = {
  ...LEAST,
  existingSecret: '',
  secrets: {
    DATABASE_URL: SECRETS.DATABASE_URL,
    MASTER_KEY: SECRETS.MASTER_KEY,
    ENCRYPTION_KEY: SECRETS.ENCRYPTION_KEY,
    LITELLM_API_KEY: SECRETS.LITELLM_API_KEY,
  },
}

const toleration = { key: 'agents', operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 1_000_000 }

/** Every setting is something else than its default, and everything that can be turned on is on. */
export const FULL: Values = {
  image: { repository: 'registry.example.com:5000/lap/platform', digest: `sha256:${'a'.repeat(64)}` },
  imagePullSecrets: ['registry-key'],
  commonLabels: { team: 'agents' },
  settings: {
    LITELLM_API_BASE: 'http://litellm.models.svc:4000',
    PREINSTALLED_GITHUB_REPO: 'https://git.example.com/repo',
    LOG_LEVEL: 'debug',
    BASE_URL: 'https://lap.example.com/lap',
    UI_USERNAME: 'operator',
    WARM_POOL_SIZE: 10_000,
    WARM_POOL_MAX_PROVISIONING: 50,
    WARM_POOL_TTL_MINUTES: 45,
    WARM_POOL_RECENT_AGENT_HOURS: 12,
    PERMISSION_TIMEOUT_MINUTES: 30,
    CHECKPOINT_STORE: 's3',
    CHECKPOINT_MAX_MIB: 128,
    CHECKPOINT_RETENTION_HOURS: 72,
    CHECKPOINT_S3_BUCKET: 'lap-checkpoints',
    CHECKPOINT_S3_PREFIX: 'agents/checkpoints',
    CHECKPOINT_S3_REGION: 'eu-central-1',
    CHECKPOINT_S3_ENDPOINT: 'https://s3.example.com',
    CHECKPOINT_S3_PATH_STYLE: true,
    CHECKPOINT_S3_ACCESS_KEY_ID: 's3-key-id',
    SESSION_IDLE_TIMEOUT_MINUTES: 5,
    SESSION_MAX_HOURS: 8,
    TEMPORAL_ADDRESS: 'temporal.example.com:7233',
    TEMPORAL_NAMESPACE: 'agents',
    TEMPORAL_TLS: true,
    TEMPORAL_TLS_SERVER_NAME: 'temporal.internal',
    TEMPORAL_UI_URL: 'https://temporal-ui.example.com',
    HARNESS_PATH: '/opt/harnesses',
    WEBHOOK_ALLOW_PRIVATE_TARGETS: true,
    WEBHOOK_RETENTION_DAYS: 7,
    LINEAR_CLIENT_ID: 'linear-client',
  },
  secrets: SECRETS,
  containerEnv: { HTTP_PROXY: 'http://proxy:3128', NUMBER: '1000000' },
  temporal: { tls: { existingSecret: 'temporal-tls', caKey: 'ca.crt', certKey: 'tls.crt', keyKey: 'tls.key' } },
  sandbox: {
    api: 'pod',
    namespace: 'sandboxes',
    instance: 'other',
    access: 'nodeport',
    nodeHost: 'node.example.com',
    unschedulableGraceSeconds: 120,
    supervisorPort: 5090,
    images: { default: 'a:1', opencode: 'b:2', claudeSdk: 'c:3', claudeCode: 'd:4', codex: 'e:5', qwenCode: 'f:6' },
    imagePullPolicy: 'Always',
    imagePullSecrets: ['one', 'two'],
    resources: { requests: { cpu: '100m', memory: '1Gi' }, limits: { cpu: '4', memory: '8Gi' } },
    workSize: '20Gi',
    priorityClass: { name: 'agents', value: 1_000_000, preemptionPolicy: 'PreemptLowerPriority' },
    runtimeClass: 'gvisor',
    nodeSelector: { disk: 'ssd', pool: 'agents' },
    tolerations: [toleration],
    serviceAccount: { name: 'agent' },
  },
  api: {
    autoscaling: { enabled: true, behavior: { scaleDown: { stabilizationWindowSeconds: 300 } } },
    podLabels: { 'example.com/tier': 'front' },
    podAnnotations: { 'example.com/note': 'yes' },
    nodeSelector: { 'kubernetes.io/os': 'linux' },
    tolerations: [toleration],
    affinity: { nodeAffinity: {} },
    topologySpreadConstraints: [
      { maxSkew: 1, topologyKey: 'example.com/rack', whenUnsatisfiable: 'DoNotSchedule', labelSelector: {} },
    ],
    priorityClassName: 'platform',
    serviceAccount: { annotations: { 'example.com/role': 'reader' } },
    extraEnv: [{ name: 'NODE_EXTRA_CA_CERTS', value: '/etc/ca/ca.pem' }],
    extraVolumes: [{ name: 'ca', configMap: { name: 'ca' } }],
    extraVolumeMounts: [{ name: 'ca', mountPath: '/etc/ca' }],
  },
  worker: {
    autoscaling: { enabled: true },
    disruptionBudget: { maxUnavailable: '50%' },
    extraVolumes: [{ name: 'harnesses', persistentVolumeClaim: { claimName: 'harnesses' } }],
    extraVolumeMounts: [{ name: 'harnesses', mountPath: '/opt/harnesses', readOnly: true }],
  },
  migrations: {
    extraEnv: [{ name: 'PGSSLROOTCERT', value: '/etc/ca/ca.pem' }],
    extraVolumes: [{ name: 'ca', configMap: { name: 'ca' } }],
    extraVolumeMounts: [{ name: 'ca', mountPath: '/etc/ca' }],
  },
  service: { type: 'NodePort', nodePort: 30_080, annotations: { 'example.com/lb': 'internal' } },
  ingress: {
    enabled: true,
    className: 'nginx',
    host: 'lap.example.com',
    tlsSecret: 'lap-certificate',
    annotations: { 'example.com/read-timeout': '3600' },
  },
  networkPolicy: {
    sandboxes: {
      ingressFrom: [{ ipBlock: { cidr: '10.0.0.0/8' } }],
      egress: [
        {
          to: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'models' } } }],
          ports: [{ port: 4000 }],
        },
      ],
      allowedRanges: ['10.20.0.0/24', 'fd00:20::/64'],
      blockedRanges: ['10.0.0.0/8', '169.254.169.254/32', 'fc00::/7'],
      dns: { podLabels: { 'k8s-app': 'coredns', tier: 'system' } },
    },
    platform: {
      apiFrom: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'ingress' } } }],
      metricsFrom: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'monitoring' } } }],
    },
  },
  serviceMonitor: { enabled: true, labels: { release: 'prometheus' } },
}

/** Everything that can be turned off is off. */
const BARE: Values = {
  ...LEAST,
  sandbox: {
    priorityClass: { create: false },
    serviceAccount: { create: false },
    disruptionBudget: { create: false },
  },
  rbac: { create: false },
  api: { replicas: 1, serviceAccount: { create: false }, disruptionBudget: { create: false } },
  worker: { replicas: 1, serviceAccount: { create: false }, disruptionBudget: { create: false } },
  migrations: { enabled: false },
  networkPolicy: { enabled: false },
}

export const VALUE_SETS: [string, Values][] = [
  ['the least', LEAST],
  ['its own Secret', WITH_SECRETS],
  ['everything', FULL],
  ['nothing', BARE],
]
