import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { Client } from 'pg'
import { loadConfig } from '../../config/config.ts'
import { createDatabase, pendingMigrations } from '../../db/database.ts'
import { createKubeClient, type KubeClient } from '../../kubernetes/client.ts'
import { loadCredentials } from '../../kubernetes/credentials.ts'
import type { Pod } from '../../kubernetes/objects.ts'
import { inspectorRightsFor, preflight } from '../../kubernetes/preflight.ts'
import { isStatus, kubeconfigText, readAccess } from '../../tools/cluster/kube.ts'
import { CHART, type Helm, openHelm, type Values } from './helm.ts'
import { eventually, getOrNull, makeNamespace } from './namespace.ts'
import { environmentOf, type ProcessPod, runPods } from './processes.ts'
import { connectShared, sharedKubeconfig } from './shared.ts'
import { becomesReady, createWorld, type World } from './world.ts'

/** The strictest of the three standards, as a cluster may demand it. */
const RESTRICTED = Object.fromEntries(
  ['enforce', 'warn'].map((mode) => [`pod-security.kubernetes.io/${mode}`, 'restricted']),
)

type Nodes = { items: { metadata: { annotations?: Record<string, string> } }[] }

/** Its pods must become ready without the platform's image, which no test of this file has. */
const hasFakeNodes = async (): Promise<boolean> => {
  await using kube = await connectShared('admin')
  const { items } = await kube.get<Nodes>('/api/v1/nodes')
  const isFake = items.some(({ metadata }) => metadata.annotations?.['kwok.x-k8s.io/node'] === 'fake')
  if (!isFake) console.info('Skipped: the chart is installed with pods that only fake nodes (KWOK) start')
  return isFake
}

const withPostgres = async <T>(work: (client: Client) => Promise<T>): Promise<T> => {
  const client = new Client({ connectionString: process.env['TEST_DATABASE_URL'] })
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

const kubeconfigOf = async (dir: string, token: string): Promise<string> => {
  const file = path.join(dir, `${randomBytes(4).toString('hex')}.kubeconfig`)
  const { server, ca = '' } = await readAccess(sharedKubeconfig().admin)
  await writeFile(file, kubeconfigText({ server, ca, token }), { mode: 0o600 })
  return file
}

type Listed = { items: { kind?: string; metadata: { name: string; labels?: Record<string, string> } }[] }

const where = (await hasFakeNodes()) ? describe.each(['sandbox', 'pod'] as const) : describe.skip.each(['sandbox', 'pod'] as const) // prettier-ignore
where('installed with sandbox.api=%s', (api) => {
  const database = `chart_${randomBytes(6).toString('hex')}`
  let world: World
  let helm: Helm
  let dir: string
  let platform: string
  let migrations: ReturnType<typeof runPods>
  let values: Values
  let said: string

  const release = (verb: 'install' | 'upgrade', more: Values = {}): Promise<string> =>
    helm.run([verb, 'lap', CHART, '--namespace', platform, '--wait', '--timeout', '60s'], { ...values, ...more })

  const asProcess = async (component: 'api' | 'worker'): Promise<{ file: string; client: KubeClient }> => {
    const account = `/api/v1/namespaces/${platform}/serviceaccounts/lap-${component}`
    const { status } = await world.kube.create<{ status: { token: string } }>(`${account}/token`, {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: {},
    })
    const file = await kubeconfigOf(dir, status.token)
    return { file, client: createKubeClient(loadCredentials(file)) }
  }

  const podsOf = async (component: string): Promise<ProcessPod[]> => {
    const label = encodeURIComponent(`app.kubernetes.io/component=${component}`)
    const { items } = await world.kube.get<{ items: ProcessPod[] }>(
      `/api/v1/namespaces/${platform}/pods?labelSelector=${label}`,
    )
    return items
  }

  beforeAll(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'lap-chart-'))
    world = await createWorld({ kubeconfig: sharedKubeconfig(), api, labels: RESTRICTED })
    platform = await makeNamespace(world.kube, RESTRICTED)
    helm = await openHelm(sharedKubeconfig().tester)
    await withPostgres((client) => client.query(`create database ${database}`))
    const url = new URL(process.env['TEST_DATABASE_URL'] ?? '')
    url.pathname = `/${database}`
    values = {
      settings: { LITELLM_API_BASE: 'https://litellm.example.com' },
      secrets: {
        DATABASE_URL: url.href,
        MASTER_KEY: 'chart-master-key',
        ENCRYPTION_KEY: Buffer.alloc(32, 7).toString('base64'),
        LITELLM_API_KEY: 'sk-1',
      },
      sandbox: {
        api,
        namespace: world.namespace,
        instance: 'lap',
        supervisorPort: world.supervisors.port,
      },
      migrations: { backoffLimit: 0 },
    }
    migrations = runPods(world.kube, platform, 'app.kubernetes.io/component=migrations')
    said = await release('install')
  }, 120_000)
  afterAll(async () => {
    await migrations?.[Symbol.asyncDispose]()
    helm?.[Symbol.dispose]()
    await world?.kube.remove(`/api/v1/namespaces/${platform}`)
    await world?.[Symbol.asyncDispose]()
    await withPostgres((client) => client.query(`drop database if exists ${database} with (force)`))
    await rm(dir, { recursive: true, force: true })
  })

  test('every pod is admitted in a namespace that demands the restricted standard', async () => {
    expect(said).toContain('STATUS: deployed')
    expect(said).not.toMatch(/warning/i)
    expect(said).toContain(`kubectl -n ${platform} get secret lap `)
    for (const component of ['api', 'worker']) {
      const pods = await podsOf(component)
      expect(pods.map(({ status }) => status?.phase)).toEqual(['Running', 'Running'])
    }
  })

  test('the database had its schema before, from the settings of the hook', async () => {
    expect(migrations.ended.map(({ code }) => code)).toEqual([0])
    await using db = await createDatabase({ url: (values['secrets'] as { DATABASE_URL: string }).DATABASE_URL })
    expect(await pendingMigrations(db.sql)).toEqual([])
    const left = ['batch/v1/namespaces/NS/jobs', 'v1/namespaces/NS/configmaps', 'v1/namespaces/NS/secrets'].map(
      async (list) => {
        const root = list.startsWith('v1') ? '/api' : '/apis'
        const { items } = await world.kube.get<Listed>(`${root}/${list.replace('NS', platform)}`)
        return items.filter(({ metadata }) => metadata.name.endsWith('-migrations'))
      },
    )
    expect((await Promise.all(left)).flat()).toEqual([])
  })

  test('the processes have settings with which they start', async () => {
    for (const component of ['api', 'worker'] as const) {
      const [pod] = await podsOf(component)
      const config = loadConfig(await environmentOf(world.kube, pod!))
      expect(config.k8s).toMatchObject({ api, namespace: world.namespace, supervisorPort: world.supervisors.port })
      expect(config.databaseUrl).toBe((values['secrets'] as { DATABASE_URL: string }).DATABASE_URL)
    }
  })

  test('the worker has all rights that its driver asks for, and makes, marks and removes a sandbox with them', async () => {
    const { file, client } = await asProcess('worker')
    await using _ = client
    const { namespace, supervisors } = world
    expect(await preflight({ client, api, namespace, access: 'pod-ip' })).toMatchObject({ problems: [], warnings: [] })
    const driver = world.another({
      kubeconfig: file,
      settings: { priorityClassName: `${platform}-lap-sandbox`, serviceAccountName: `${platform}-lap-sandbox` },
    })
    const spec = world.spec({ purpose: 'pool' })
    await driver.create(spec)
    await becomesReady(driver, spec.name)
    await driver.markClaimed(spec.name, 'session-1')
    expect((await driver.list()).map(({ name }) => name)).toContain(spec.name)
    expect(await driver.inspect(spec.name)).toMatchObject({ exists: true, alive: true })
    const pod = await world.find<Pod & { spec: { priority: number; serviceAccountName: string } }>('pod', spec.name)
    expect(pod?.spec).toMatchObject({ priority: 1000, serviceAccountName: `${platform}-lap-sandbox` })
    expect(supervisors.of(spec.name)?.health().state).toBe('warm')
    await driver.remove(spec.name)
    await eventually(async () => (await world.find('pod', spec.name)) === null, Boolean)
  })

  test('the API may look at everything and change nothing', async () => {
    const { client } = await asProcess('api')
    await using _ = client
    const { namespace } = world
    const rights = inspectorRightsFor(api, 'pod-ip')
    expect(await preflight({ client, api, namespace, access: 'pod-ip', rights })).toMatchObject({ problems: [], warnings: [] }) // prettier-ignore
    const spec = world.spec()
    await world.driver.create(spec)
    for (const [method, body] of [
      ['DELETE', undefined],
      ['PATCH', { metadata: { labels: { a: 'b' } } }],
    ] as const)
      // prettier-ignore
      await expect(
        client.json({ method, path: world.path('pod', spec.name), ...(body === undefined ? {} : { body }) }),
      ).rejects.toMatchObject({ status: 403 })
    const secrets = client.json({ path: `/api/v1/namespaces/${platform}/secrets` })
    await expect(secrets).rejects.toMatchObject({ status: 403 })
    await world.driver.remove(spec.name)
  })

  test('a warm sandbox can be evicted, a claimed one cannot', async () => {
    const { driver, kube } = world
    const [warm, claimed] = [world.spec({ purpose: 'pool' }), world.spec({ purpose: 'pool' })]
    for (const spec of [warm, claimed]) {
      await driver.create(spec)
      await becomesReady(driver, spec.name)
    }
    await driver.markClaimed(claimed.name, 'session-1')
    const evict = (name: string): Promise<object> =>
      kube.create(`${world.path('pod', name)}/eviction`, {
        apiVersion: 'policy/v1',
        kind: 'Eviction',
        metadata: { name, namespace: world.namespace },
      })
    const refused = await evict(claimed.name).catch((error: unknown) => error)
    expect(refused).toMatchObject({ message: expect.stringContaining('disruption budget') })
    expect(isStatus(refused, 429)).toBe(true)
    const before = await world.find<Pod>('pod', warm.name)
    await evict(warm.name)
    await eventually(async () => (await world.find<Pod>('pod', warm.name))?.metadata.uid !== before?.metadata.uid, Boolean) // prettier-ignore
    expect(await world.find<Pod>('pod', claimed.name)).toMatchObject({ status: { phase: 'Running' } })
    for (const { name } of [warm, claimed]) await driver.remove(name)
  })

  test('an upgrade migrates again, then replaces the pods', async () => {
    const before = (await podsOf('api')).map(({ metadata }) => metadata.name)
    const settings = { LITELLM_API_BASE: 'https://litellm.example.com', LOG_LEVEL: 'debug' }
    values = { ...values, settings }
    await release('upgrade')
    expect(migrations.ended.map(({ code }) => code)).toEqual([0, 0])
    const [pod] = await eventually(
      () => podsOf('api'),
      (pods) => pods.every(({ metadata }) => !before.includes(metadata.name)),
    )
    expect(await environmentOf(world.kube, pod!)).toMatchObject({ LOG_LEVEL: 'debug' })
  })

  test('a migration that fails ends the upgrade before anything is replaced, and stays to be read', async () => {
    const before = (await podsOf('api')).map(({ metadata }) => metadata.name)
    const secrets = { ...(values['secrets'] as object), DATABASE_URL: 'postgresql://lap@127.0.0.1:1/lap' }
    await expect(release('upgrade', { secrets })).rejects.toThrow(/pre-upgrade hooks failed/)
    expect(migrations.ended.at(-1)).toMatchObject({ code: 1, log: expect.stringContaining('could not be migrated') })
    expect((await podsOf('api')).map(({ metadata }) => metadata.name)).toEqual(before)
    expect(await getOrNull(world.kube, `/apis/batch/v1/namespaces/${platform}/jobs/lap-migrations`)).not.toBeNull()
    await release('upgrade')
  })

  test('nothing of it is left when it is uninstalled', async () => {
    await helm.run(['uninstall', 'lap', '--namespace', platform, '--wait', '--timeout', '60s'])
    const lists = [
      ...[platform, world.namespace].flatMap((namespace) =>
        [
          `api/v1/namespaces/${namespace}/configmaps`,
          `api/v1/namespaces/${namespace}/secrets`,
          `api/v1/namespaces/${namespace}/services`,
          `api/v1/namespaces/${namespace}/serviceaccounts`,
          `apis/apps/v1/namespaces/${namespace}/deployments`,
          `apis/policy/v1/namespaces/${namespace}/poddisruptionbudgets`,
          `apis/networking.k8s.io/v1/namespaces/${namespace}/networkpolicies`,
          `apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}/roles`,
          `apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}/rolebindings`,
        ].map((list) => [list, 'lap'] as const),
      ),
      ...['clusterroles', 'clusterrolebindings'].map((kind) => [`apis/rbac.authorization.k8s.io/v1/${kind}`, platform] as const), // prettier-ignore
      ['apis/scheduling.k8s.io/v1/priorityclasses', platform] as const,
    ]
    for (const [list, beginning] of lists) {
      const { items } = await world.kube.get<Listed>(`/${list}`)
      const left = items.filter(({ metadata: { name, labels } }) => name.startsWith(beginning) && labels?.['helm.sh/chart']) // prettier-ignore
      expect([list, left.map(({ metadata }) => metadata.name)]).toEqual([list, []])
    }
  })
})
