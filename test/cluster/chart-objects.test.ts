import { existsSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { loadConfig } from '../../config/config.ts'
import { claimedPatch, objectOf as sandboxOf, readyPatch } from '../../kubernetes/manifest.ts'
import { isStatus, type Kube } from '../../tools/cluster/kube.ts'
import { dryRun, ensureServiceMonitors } from './dry-run.ts'
import { FULL, SECRETS, VALUE_SETS, WITH_SECRETS } from './chart-values.ts'
import {
  CHART,
  type Helm,
  LEAST,
  objectOf,
  objectsOf,
  openHelm,
  type Rendered,
  settingsOf,
  type Values,
} from './helm.ts'
import { makeNamespace } from './namespace.ts'
import { selects } from './policies.ts'
import { connectShared } from './shared.ts'

const root = path.join(CHART, '../..')
let helm: Helm
let kube: Kube
beforeAll(async () => {
  helm = await openHelm()
  kube = await connectShared('admin')
}, 600_000)
afterAll(async () => {
  helm?.[Symbol.dispose]()
  await kube?.[Symbol.asyncDispose]()
})

type Probe = { httpGet: { path: string; port: string } }
type Container = {
  name: string
  image: string
  command: string[]
  ports?: { name: string; containerPort: number }[]
  securityContext: object
  resources: { requests?: object; limits?: object }
  volumeMounts: { name: string; mountPath: string }[]
} & Partial<Record<'livenessProbe' | 'readinessProbe' | 'startupProbe', Probe>>
type PodTemplate = {
  metadata: { labels: Record<string, string>; annotations?: Record<string, string> }
  spec: {
    containers: Container[]
    volumes: { name: string }[]
    serviceAccountName?: string
    automountServiceAccountToken: boolean
    securityContext: object
  }
}

const templateOf = ({ spec }: Rendered): PodTemplate => spec?.['template'] as PodTemplate
const processesOf = (objects: Rendered[]): Rendered[] => [
  ...objectsOf(objects, 'Deployment'),
  ...objectsOf(objects, 'Job'),
]

describe.each(VALUE_SETS)('with %s', (_, values) => {
  let objects: Rendered[]
  beforeAll(async () => {
    objects = await helm.template(values)
  })

  test('processes run without any privilege and write to nothing but their own directories', () => {
    for (const { kind, metadata, ...rest } of processesOf(objects)) {
      const { spec } = templateOf({ kind, metadata, ...rest })
      expect(spec.securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: 'RuntimeDefault' } }) // prettier-ignore
      const volumes = new Set(spec.volumes.map(({ name }) => name))
      for (const { securityContext, resources, volumeMounts } of spec.containers) {
        expect(securityContext).toMatchObject({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        })
        expect(resources).toMatchObject({ requests: { cpu: expect.anything() }, limits: { memory: expect.anything() } })
        expect(volumeMounts.filter(({ name }) => !volumes.has(name))).toEqual([])
      }
      expect([metadata.name, spec.automountServiceAccountToken]).toEqual([metadata.name, kind === 'Deployment'])
    }
  })

  test('commands exist, and probes ask ports that settings name', () => {
    const settings = settingsOf(objects)
    const portNames: Record<string, Record<string, string>> = {
      api: { http: 'PORT', metrics: 'METRICS_PORT' },
      worker: { metrics: 'WORKER_METRICS_PORT' },
    }
    for (const object of processesOf(objects))
      for (const { name, command, ports = [], ...probes } of templateOf(object).spec.containers) {
        expect(command[0]).toBe('node')
        expect(existsSync(path.join(root, command[1] ?? ''))).toBe(true)
        const shown = Object.fromEntries(ports.map((port) => [port.name, String(port.containerPort)]))
        const told = Object.entries(portNames[name] ?? {}).map(([port, setting]) => [port, settings[setting]])
        expect(shown).toEqual(Object.fromEntries(told))
        const { livenessProbe: alive, readinessProbe: ready, startupProbe: started } = probes
        for (const probe of [alive, ready, started]) if (probe !== undefined) expect(Object.keys(shown)).toContain(probe.httpGet.port) // prettier-ignore
        if (object.kind === 'Deployment') {
          expect([alive?.httpGet.path, ready?.httpGet.path, started?.httpGet.path]).toEqual(['/healthz', '/readyz', '/healthz']) // prettier-ignore
        }
      }
  })

  test('the API server takes every object as it is', async () => {
    const [platform, sandboxes] = [await makeNamespace(kube), await makeNamespace(kube)]
    if (objectsOf(objects, 'ServiceMonitor').length > 0) await ensureServiceMonitors(kube)
    const { sandbox = {} } = values as { sandbox?: object }
    const rendered = await helm.template(
      { ...values, sandbox: { ...sandbox, namespace: sandboxes } },
      { namespace: platform },
    )
    const kinds = await Promise.all(rendered.map((object) => dryRun(kube, object)))
    expect(kinds).toHaveLength(objects.length)
    for (const name of [platform, sandboxes]) await kube.remove(`/api/v1/namespaces/${name}`)
  })
})

test('a field that is not there is found by the dry run', async () => {
  const namespace = await makeNamespace(kube)
  const [service] = objectsOf(await helm.template(LEAST, { namespace }), 'Service')
  if (service === undefined) throw new Error('no Service')
  const wrong = dryRun(kube, { ...service, spec: { ...service.spec, prots: [] } })
  await expect(wrong).rejects.toMatchObject({ cause: { message: expect.stringContaining('prots') } })
  await expect(wrong.catch((error: { cause: unknown }) => isStatus(error.cause, 400))).resolves.toBe(true)
  await kube.remove(`/api/v1/namespaces/${namespace}`)
})

describe('sandboxes as the platform makes them with these settings', () => {
  const cases: [string, Values][] = [
    ['the least', WITH_SECRETS],
    ['everything', { ...FULL, temporal: {} }],
  ]
  test.each(cases)('with %s they are what budget and policies select', async (_, values) => {
    const objects = await helm.template(values)
    const { k8s } = loadConfig(settingsOf(objects))
    const made = sandboxOf(
      {
        sandboxId: 'sandbox-1',
        name: 'lap-sandbox-1',
        agentId: 'agent-1',
        templateHash: 'a'.repeat(32),
        purpose: 'pool',
        harnessId: 'opencode',
        image: 'harness:1',
        repoUrl: 'https://git.example.com/repo',
        branch: 'main',
        resources: null,
        allowOut: [],
        denyOut: [],
        setupCommand: null,
        env: {},
        token: 'x'.repeat(43),
      },
      { ...k8s, installation: 'this-one' },
    )
    const { labels } = made.metadata
    const { spec: budget } = objectOf(objects, 'PodDisruptionBudget', '-claimed')
    const ready = { ...labels, ...readyPatch('uid').labels }
    expect(selects(budget?.['selector'], labels)).toBe(false)
    expect(selects(budget?.['selector'], ready)).toBe(false)
    expect(selects(budget?.['selector'], { ...ready, ...claimedPatch('session-1', null).labels })).toBe(true)
    expect(budget?.['minAvailable']).toBe(2 ** 31 - 1)

    const policy = objectOf(objects, 'NetworkPolicy', '-sandboxes')
    const { podSelector, ingress } = policy.spec as {
      podSelector: unknown
      ingress: { from: { podSelector?: unknown; namespaceSelector?: unknown }[]; ports: { port: number }[] }[]
    }
    expect(selects(podSelector, labels)).toBe(true)
    expect(ingress).toHaveLength(1)
    expect(ingress[0]?.ports.map(({ port }) => port)).toEqual([k8s.supervisorPort])
    const [platform] = ingress[0]?.from ?? []
    for (const object of processesOf(objects))
      expect([object.kind, selects(platform?.podSelector, templateOf(object).metadata.labels)]).toEqual([object.kind, object.kind === 'Deployment']) // prettier-ignore
    expect(selects(platform?.podSelector, labels)).toBe(false)

    for (const sandbox of [
      policy,
      objectOf(objects, 'PodDisruptionBudget', '-claimed'),
      objectOf(objects, 'Role', '-worker'),
    ])
      expect(sandbox.metadata.namespace).toBe(k8s.namespace)
    expect(objectOf(objects, 'PriorityClass').metadata.name).toBe(k8s.priorityClassName)
    const account = objectsOf(objects, 'ServiceAccount').find(
      ({ metadata }) => metadata.name === k8s.serviceAccountName,
    )
    expect(account).toMatchObject({ automountServiceAccountToken: false, metadata: { namespace: k8s.namespace } })
  })
})

describe('releases', () => {
  test('of one name in two namespaces share nothing of the cluster, nor their sandboxes', async () => {
    const of = (namespace: string) => helm.template({ ...LEAST, sandbox: { namespace: 'sandboxes' } }, { namespace })
    const [one, other] = await Promise.all([of('one'), of('other')])
    const names = (objects: Rendered[]) =>
      objects.filter(({ metadata }) => metadata.namespace === undefined || metadata.namespace === 'sandboxes').map(({ kind, metadata }) => `${kind} ${metadata.name}`) // prettier-ignore
    expect(names(one).filter((name) => names(other).includes(name))).toEqual([])
    expect(settingsOf(one)['K8S_INSTANCE']).toBe('one-lap')
    expect(settingsOf(other)['K8S_INSTANCE']).toBe('other-lap')
  })

  test('other settings and other keys make new pods, the same ones do not', async () => {
    const sumOf = async (values: Values) =>
      templateOf(objectOf(await helm.template(values), 'Deployment', '-api')).metadata.annotations?.[
        'checksum/settings'
      ]
    const sum = await sumOf(WITH_SECRETS)
    expect(sum).toMatch(/^[0-9a-f]{64}$/)
    expect(await sumOf(WITH_SECRETS)).toBe(sum)
    expect(await sumOf({ ...WITH_SECRETS, containerEnv: { A: 'b' } })).not.toBe(sum)
    expect(await sumOf({ ...WITH_SECRETS, secrets: { ...SECRETS, MASTER_KEY: 'another-key' } })).not.toBe(sum)
  })

  test('the longest name of a release leaves room for those made from it', async () => {
    const objects = await helm.template(LEAST, { release: 'r'.repeat(53), namespace: 'n'.repeat(63) })
    for (const { metadata } of objects) expect(metadata.name.length).toBeLessThanOrEqual(metadata.namespace === undefined ? 253 : 63) // prettier-ignore
  })
})
