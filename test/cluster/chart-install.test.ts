import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { loadConfig } from '../../config/config.ts'
import { createDatabase, pendingMigrations } from '../../db/database.ts'
import { createKubeClient } from '../../kubernetes/client.ts'
import { loadCredentials } from '../../kubernetes/credentials.ts'
import type { Pod } from '../../kubernetes/objects.ts'
import { inspectorRightsFor, preflight } from '../../kubernetes/preflight.ts'
import { isStatus } from '../../tools/cluster/kube.ts'
import { eventually, getOrNull } from './namespace.ts'
import { environmentOf } from './processes.ts'
import { canInstall, installRelease, type Release, RELEASE_TEST_MS, RESTRICTED } from './release.ts'
import { sharedKubeconfig } from './shared.ts'
import { becomesReady, createWorld, type World } from './world.ts'

type Listed = { items: { kind?: string; metadata: { name: string; labels?: Record<string, string> } }[] }

const where = (await canInstall()) ? describe : describe.skip
where.each(['sandbox', 'pod'] as const)('installed with sandbox.api=%s', (api) => {
  let world: World
  let release: Release

  beforeAll(async () => {
    world = await createWorld({ kubeconfig: sharedKubeconfig(), api, labels: RESTRICTED })
    release = await installRelease(world)
  }, RELEASE_TEST_MS)
  afterAll(async () => {
    await release?.[Symbol.asyncDispose]()
    await world?.[Symbol.asyncDispose]()
  })

  test('every pod is admitted in a namespace that demands the restricted standard', async () => {
    expect(release.said).toContain('STATUS: deployed')
    // As Helm's client prints what an API server warns of: `W1121 … warnings.go:70] would violate PodSecurity …`.
    expect(release.said).not.toMatch(/warnings\.go|would violate/)
    expect(release.said).toContain(`kubectl -n ${release.namespace} get secret lap `)
    for (const component of ['api', 'worker']) {
      const pods = await release.podsOf(component)
      expect(pods.map(({ status }) => status?.phase)).toEqual(['Running', 'Running'])
    }
  })

  test('the database had its schema before, from the settings of the hook', async () => {
    expect(release.migrations.map(({ code }) => code)).toEqual([0])
    await using db = await createDatabase({ url: release.databaseUrl })
    expect(await pendingMigrations(db.sql)).toEqual([])
    const left = ['batch/v1/namespaces/NS/jobs', 'v1/namespaces/NS/configmaps', 'v1/namespaces/NS/secrets'].map(
      async (list) => {
        const root = list.startsWith('v1') ? '/api' : '/apis'
        const { items } = await world.kube.get<Listed>(`${root}/${list.replace('NS', release.namespace)}`)
        return items.filter(({ metadata }) => metadata.name.endsWith('-migrations'))
      },
    )
    expect((await Promise.all(left)).flat()).toEqual([])
  })

  test('the processes have settings with which they start', async () => {
    for (const component of ['api', 'worker'] as const) {
      const [pod] = await release.podsOf(component)
      const config = loadConfig(await environmentOf(world.kube, pod!))
      expect(config.k8s).toMatchObject({ api, namespace: world.namespace, supervisorPort: world.supervisors.port })
      expect(config.databaseUrl).toBe(release.databaseUrl)
    }
  })

  test('the worker has all rights that its driver asks for, and makes, marks and removes a sandbox with them', async () => {
    const file = await release.kubeconfigOf('worker')
    await using client = createKubeClient(loadCredentials(file))
    const { namespace, supervisors } = world
    expect(await preflight({ client, api, namespace, access: 'pod-ip' })).toMatchObject({ problems: [], warnings: [] })
    const driver = world.another({
      kubeconfig: file,
      settings: {
        priorityClassName: `${release.namespace}-lap-sandbox`,
        serviceAccountName: `${release.namespace}-lap-sandbox`,
      },
    })
    const spec = world.spec({ purpose: 'pool' })
    await driver.create(spec)
    await becomesReady(driver, spec.name)
    await driver.markClaimed(spec.name, 'session-1')
    expect((await driver.list()).map(({ name }) => name)).toContain(spec.name)
    expect(await driver.inspect(spec.name)).toMatchObject({ exists: true, alive: true })
    const pod = await world.find<Pod & { spec: { priority: number; serviceAccountName: string } }>('pod', spec.name)
    expect(pod?.spec).toMatchObject({ priority: 1000, serviceAccountName: `${release.namespace}-lap-sandbox` })
    expect(supervisors.of(spec.name)?.health().state).toBe('warm')
    await driver.remove(spec.name)
    await eventually(async () => (await world.find('pod', spec.name)) === null, Boolean)
  })

  test('the API may look at everything and change nothing', async () => {
    await using client = createKubeClient(loadCredentials(await release.kubeconfigOf('api')))
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
    const secrets = client.json({ path: `/api/v1/namespaces/${release.namespace}/secrets` })
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

  test(
    'an upgrade migrates again, then replaces the pods',
    async () => {
      const before = (await release.podsOf('api')).map(({ metadata }) => metadata.name)
      const settings = { LITELLM_API_BASE: 'https://litellm.example.com', LOG_LEVEL: 'debug' }
      await release.upgrade({ settings })
      expect(release.migrations.map(({ code }) => code)).toEqual([0, 0])
      const [pod] = await eventually(
        () => release.podsOf('api'),
        (pods) => pods.every(({ metadata }) => !before.includes(metadata.name)),
      )
      expect(await environmentOf(world.kube, pod!)).toMatchObject({ LOG_LEVEL: 'debug' })
    },
    RELEASE_TEST_MS,
  )

  test(
    'a migration that fails ends the upgrade before anything is replaced, and stays to be read',
    async () => {
      const before = (await release.podsOf('api')).map(({ metadata }) => metadata.name)
      const secrets = { ...release.secrets, DATABASE_URL: 'postgresql://lap@127.0.0.1:1/lap' }
      await expect(release.upgrade({ secrets })).rejects.toThrow(/pre-upgrade hooks failed/)
      expect(release.migrations.at(-1)).toMatchObject({
        code: 1,
        log: expect.stringContaining('could not be migrated'),
      })
      expect((await release.podsOf('api')).map(({ metadata }) => metadata.name)).toEqual(before)
      expect(
        await getOrNull(world.kube, `/apis/batch/v1/namespaces/${release.namespace}/jobs/lap-migrations`),
      ).not.toBeNull()
      await release.upgrade()
    },
    RELEASE_TEST_MS,
  )

  test(
    'nothing of it is left when it is uninstalled',
    async () => {
      await release.helm.run(['uninstall', 'lap', '--namespace', release.namespace, '--wait', '--timeout', '150s'])
      const lists = [
        ...[release.namespace, world.namespace].flatMap((namespace) =>
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
        ...['clusterroles', 'clusterrolebindings'].map((kind) => [`apis/rbac.authorization.k8s.io/v1/${kind}`, release.namespace] as const), // prettier-ignore
        ['apis/scheduling.k8s.io/v1/priorityclasses', release.namespace] as const,
      ]
      for (const [list, beginning] of lists) {
        const { items } = await world.kube.get<Listed>(`/${list}`)
        const left = items.filter(({ metadata: { name, labels } }) => name.startsWith(beginning) && labels?.['helm.sh/chart']) // prettier-ignore
        expect([list, left.map(({ metadata }) => metadata.name)]).toEqual([list, []])
      }
    },
    RELEASE_TEST_MS,
  )
})
