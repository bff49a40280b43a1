import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { loadConfig } from '../../config/config.ts'
import { type KubeList, type Pod, pathOf } from '../../kubernetes/objects.ts'
import type { SandboxSpec } from '../../sandbox/driver.ts'
import { connectKube, type Kube, readAccess } from '../../tools/cluster/kube.ts'
import { dryRun } from './dry-run.ts'
import { WITH_SECRETS } from './chart-values.ts'
import { type Helm, objectsOf, openHelm, type Rendered, settingsOf, type Values } from './helm.ts'
import { eventually, makeNamespace } from './namespace.ts'
import { type Destination, reaches, type StoredPolicy } from './policies.ts'
import { sharedKubeconfig } from './shared.ts'
import { createWorld, type World } from './world.ts'

let helm: Helm
let kube: Kube
beforeAll(async () => {
  helm = await openHelm()
  kube = connectKube(await readAccess(sharedKubeconfig().admin))
}, 600_000)
afterAll(async () => {
  helm?.[Symbol.dispose]()
  await kube?.[Symbol.asyncDispose]()
})

/** The chart's policies for sandboxes. */
const policiesOf = (objects: Rendered[]): Rendered[] =>
  objectsOf(objects, 'NetworkPolicy').filter(({ metadata }) => metadata.name.includes('-sandboxes'))

const RULES: Record<string, Partial<SandboxSpec>> = {
  'no rules': {},
  'names only': { allowOut: ['api.example.com', '192.0.2.7'], denyOut: ['198.51.100.0/24'] },
  'one range': { allowOut: ['192.0.2.0/24', '10.9.0.0/16', '2001:db8::/32'] },
  'all but one': { denyOut: ['192.0.2.7', 'example.com'] },
  'nothing inside': { allowOut: ['10.0.0.0/8', '169.254.169.254'] },
}

const at = (address: string, port = 443): Destination => ({ address, port })
const pod = (
  namespace: string,
  labels: Record<string, string>,
  more: { port: number; protocol?: 'UDP' },
): Destination => ({
  namespace,
  namespaceLabels: { 'kubernetes.io/metadata.name': namespace },
  labels,
  ...more,
})
const dns = { 'k8s-app': 'coredns' }

const DESTINATIONS: Record<string, Destination> = {
  'a name server': pod('kube-system', dns, { port: 53, protocol: 'UDP' }),
  'a name server at another port': pod('kube-system', dns, { port: 9153 }),
  'port 53 of another pod': pod('other', { app: 'any' }, { port: 53 }),
  'port 53 of cloud metadata': at('169.254.169.254', 53),
  'the gateway inside': pod('models', {}, { port: 4000 }),
  'an allowed range': at('10.20.0.9'),
  'cloud metadata': at('169.254.169.254', 80),
  'the cluster': at('10.9.1.1'),
  'the cluster, IPv6': at('fd00::1'),
  '192.0.2.7': at('192.0.2.7'),
  '192.0.2.8': at('192.0.2.8'),
  '198.51.100.1': at('198.51.100.1'),
  '2001:db8::1': at('2001:db8::1'),
  '2600::1': at('2600::1'),
}

const always = ['a name server', 'the gateway inside', 'an allowed range']
const EXPECTED: Record<string, string[]> = {
  'no rules': [...always, '192.0.2.7', '192.0.2.8', '198.51.100.1', '2001:db8::1', '2600::1'],
  // An allow list with a name in it cannot be held to by addresses.
  'names only': [...always, '192.0.2.7', '192.0.2.8', '198.51.100.1', '2001:db8::1', '2600::1'],
  'one range': [...always, '192.0.2.7', '192.0.2.8', '2001:db8::1'],
  'all but one': [...always, '192.0.2.8', '198.51.100.1', '2001:db8::1', '2600::1'],
  'nothing inside': always,
}

describe.each(['sandbox', 'pod'] as const)('with K8S_SANDBOX_API=%s', (api) => {
  let world: World
  const pods: Record<string, Pod> = {}
  const path = (): string => pathOf('networkpolicies', world.namespace)
  const stored = async (): Promise<StoredPolicy[]> => (await kube.get<KubeList<StoredPolicy>>(path())).items
  const reached = async (rules: string): Promise<string[]> => {
    const policies = await stored()
    return Object.keys(DESTINATIONS).filter((name) => reaches(policies, pods[rules]!, DESTINATIONS[name]!))
  }

  beforeAll(async () => {
    world = await createWorld({ kubeconfig: sharedKubeconfig(), api })
    const objects = await helm.template({
      ...WITH_SECRETS,
      sandbox: { api, namespace: world.namespace, instance: 'lap' },
      networkPolicy: {
        sandboxes: {
          egress: [
            {
              to: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'models' } } }],
              ports: [{ port: 4000 }],
            },
          ],
          allowedRanges: ['10.20.0.0/24'],
          dns: { podLabels: dns },
        },
      },
    })
    for (const policy of policiesOf(objects)) await kube.create(path(), policy)
    const { egress } = loadConfig(settingsOf(objects)).k8s
    const driver = world.another({ settings: { egress } })
    for (const [name, rules] of Object.entries(RULES)) {
      const spec = world.spec(rules)
      await driver.create(spec)
      pods[name] = await eventually(() => world.find<Pod>('pod', spec.name))
    }
  }, 60_000)
  afterAll(async () => {
    await world?.[Symbol.asyncDispose]()
  })

  test.each(Object.keys(RULES))(
    'a sandbox with %s reaches what the policies of chart and agent open together',
    async (name) => {
      await expect(reached(name)).resolves.toEqual(
        Object.keys(DESTINATIONS).filter((one) => EXPECTED[name]!.includes(one)),
      )
    },
  )

  test('only those with rules of addresses have a policy of their own, each for itself', async () => {
    const names = (await stored()).map(({ metadata }) => metadata.name).filter((name) => !name.includes('-sandboxes'))
    const own = ['one range', 'all but one', 'nothing inside'].map((name) => pods[name]!.metadata.name)
    expect(names.toSorted()).toEqual(own.toSorted())
  })

  test('without the policies of the chart those with rules reach no more, and names can still be asked for', async () => {
    for (const { metadata } of await stored())
      if (metadata.name.includes('-sandboxes')) await kube.remove(`${path()}/${metadata.name}`)
    for (const name of ['one range', 'all but one', 'nothing inside'])
      await expect(reached(name)).resolves.toEqual(
        Object.keys(DESTINATIONS).filter((one) => EXPECTED[name]!.includes(one) && one !== 'the gateway inside'),
      )
    await expect(reached('no rules')).resolves.toEqual(Object.keys(DESTINATIONS))
  })
})

const RANGES: [string, string[]][] = [
  ['none', []],
  ['all of IPv4', ['0.0.0.0/0', '10.0.0.0/8']],
  ['all of IPv6', ['10.0.0.0/8', '::/0']],
  ['all', ['0.0.0.0/0', '::/0']],
  ['twice the same', ['10.0.0.0/8', '10.0.0.0/8']],
  ['one inside another', ['10.0.0.0/8', '10.1.0.0/16', 'fc00::/7', 'fd00::/8']],
  ['host bits', ['10.1.2.3/8']],
]
test.each(RANGES)(
  'the API server takes the policies of the chart when ranges are blocked: %s',
  async (_, blockedRanges) => {
    const namespace = await makeNamespace(kube)
    const values: Values = { ...WITH_SECRETS, networkPolicy: { sandboxes: { blockedRanges } } }
    const objects = await helm.template(values, { namespace })
    for (const policy of policiesOf(objects)) await dryRun(kube, policy)
    const { egress } = loadConfig(settingsOf(objects)).k8s
    expect(egress.blocked).toHaveLength(new Set(blockedRanges).size)
    const sandbox = {
      metadata: { name: 'any', namespace, labels: { 'app.kubernetes.io/managed-by': 'lap', 'lap/instance': 'lap' } },
    }
    const policies = policiesOf(objects) as unknown as StoredPolicy[]
    const open = ['198.51.100.1', '2600::1'].filter((address) => reaches(policies, sandbox, at(address)))
    expect(open).toEqual(
      ['198.51.100.1', '2600::1'].filter((one) => !blockedRanges.includes(one.includes(':') ? '::/0' : '0.0.0.0/0')),
    )
    await kube.remove(`/api/v1/namespaces/${namespace}`)
  },
)
