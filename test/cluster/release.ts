import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Client } from 'pg'
import { kubeconfigText, readAccess } from '../../tools/cluster/kube.ts'
import { CHART, type Helm, openHelm, type Values } from './helm.ts'
import { makeNamespace } from './namespace.ts'
import { type Ended, type ProcessPod, runPods } from './processes.ts'
import { connectShared, sharedKubeconfig } from './shared.ts'
import type { World } from './world.ts'

/** The strictest of the three standards, as a cluster may demand it. */
export const RESTRICTED = Object.fromEntries(
  ['enforce', 'warn'].map((mode) => [`pod-security.kubernetes.io/${mode}`, 'restricted']),
)

export type Component = 'api' | 'worker'

/** A release `lap` of the chart in a namespace of its own, with a database of its own; its sandboxes live in the world's. */
export type Release = AsyncDisposable & {
  namespace: string
  databaseUrl: string
  secrets: Record<string, string>
  helm: Helm
  /** What Helm said of the installation. */
  said: string
  /** Each run of the migrations. */
  migrations: Ended[]
  upgrade(more?: Values): Promise<string>
  podsOf(component: string): Promise<ProcessPod[]>
  /** With the rights of this process, and no others. @returns the file */
  kubeconfigOf(component: Component): Promise<string>
}

type Nodes = { items: { metadata: { annotations?: Record<string, string> } }[] }

/** Its pods must become ready without the platform's image, which no test has. */
export const canInstall = async (): Promise<boolean> => {
  await using kube = await connectShared('admin')
  const { items } = await kube.get<Nodes>('/api/v1/nodes')
  const isFake = items.some(({ metadata }) => metadata.annotations?.['kwok.x-k8s.io/node'] === 'fake')
  if (!isFake) console.info('Skipped: the chart is installed with pods that only fake nodes (KWOK) start')
  return isFake
}

const onPostgres = async (statement: string): Promise<void> => {
  const client = new Client({ connectionString: process.env['TEST_DATABASE_URL'] })
  await client.connect()
  try {
    await client.query(statement)
  } finally {
    await client.end()
  }
}

/** An empty one: the release brings it to its schema. */
const createDatabase = async (): Promise<{ url: string; drop(): Promise<void> }> => {
  const name = `chart_${randomBytes(6).toString('hex')}`
  await onPostgres(`create database ${name}`)
  const url = new URL(process.env['TEST_DATABASE_URL'] ?? '')
  url.pathname = `/${name}`
  return { url: url.href, drop: () => onPostgres(`drop database if exists ${name} with (force)`) }
}

const writeKubeconfig = async (dir: string, token: string): Promise<string> => {
  const file = path.join(dir, `${randomBytes(4).toString('hex')}.kubeconfig`)
  const { server, ca = '' } = await readAccess(sharedKubeconfig().admin)
  await writeFile(file, kubeconfigText({ server, ca, token }), { mode: 0o600 })
  return file
}

/** Helm waits for pods and hooks; seconds, but for a machine that builds something beside. */
const HELM_TIMEOUT_S = 150
/** Of a test that installs or upgrades. */
export const RELEASE_TEST_MS = 240_000

export const MASTER_KEY = 'chart-master-key'

const secretsOf = (databaseUrl: string): Record<string, string> => ({
  DATABASE_URL: databaseUrl,
  MASTER_KEY,
  ENCRYPTION_KEY: Buffer.alloc(32, 7).toString('base64'),
  LITELLM_API_KEY: 'sk-1',
})

const valuesOf = (world: World, settings: Values): Values => ({
  settings: { LITELLM_API_BASE: 'https://litellm.example.com', ...settings },
  sandbox: {
    api: world.api,
    namespace: world.namespace,
    instance: 'lap',
    access: 'pod-ip',
    supervisorPort: world.supervisors.port,
  },
  migrations: { backoffLimit: 0 },
})

export const installRelease = async (world: World, settings: Values = {}): Promise<Release> => {
  const { kube } = world
  await using cleanup = new AsyncDisposableStack()
  const dir = await mkdtemp(path.join(tmpdir(), 'lap-chart-'))
  cleanup.defer(() => rm(dir, { recursive: true, force: true }))
  const database = await createDatabase()
  cleanup.defer(() => database.drop())
  const namespace = await makeNamespace(kube, RESTRICTED)
  cleanup.defer(() => kube.remove(`/api/v1/namespaces/${namespace}`))
  const helm = cleanup.use(await openHelm(sharedKubeconfig().tester))
  const migrations = cleanup.use(runPods(kube, namespace, 'app.kubernetes.io/component=migrations'))
  const secrets = secretsOf(database.url)
  const values = { ...valuesOf(world, settings), secrets }
  const run = (verb: 'install' | 'upgrade', more: Values = {}): Promise<string> =>
    helm.run([verb, 'lap', CHART, '--namespace', namespace, '--wait', '--timeout', `${HELM_TIMEOUT_S}s`], {
      ...values,
      ...more,
    })
  const said = await run('install')
  const kept = cleanup.move()
  return {
    namespace,
    databaseUrl: database.url,
    secrets,
    helm,
    said,
    migrations: migrations.ended,
    upgrade: (more) => run('upgrade', more),
    podsOf: async (component) => {
      const label = encodeURIComponent(`app.kubernetes.io/component=${component}`)
      const list = `/api/v1/namespaces/${namespace}/pods?labelSelector=${label}`
      return (await kube.get<{ items: ProcessPod[] }>(list)).items
    },
    kubeconfigOf: async (component) => {
      const account = `/api/v1/namespaces/${namespace}/serviceaccounts/lap-${component}`
      const { status } = await kube.create<{ status: { token: string } }>(`${account}/token`, {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenRequest',
        spec: {},
      })
      return writeKubeconfig(dir, status.token)
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}
