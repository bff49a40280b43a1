import { randomUUID } from 'node:crypto'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals'
import { loadConfig } from '../../config/config.ts'
import { createKubeClient } from '../../kubernetes/client.ts'
import { loadCredentials } from '../../kubernetes/credentials.ts'
import { createKubernetesDriver, type KubernetesDriver } from '../../kubernetes/driver.ts'
import { pathOf, type Pod } from '../../kubernetes/objects.ts'
import type { SandboxSpec } from '../../sandbox/driver.ts'
import { canRunNode } from '../../tools/cluster/node.ts'
import { run } from '../../tools/image/run.ts'
import { WITH_SECRETS } from './chart-values.ts'
import { objectsOf, openHelm, type Rendered, settingsOf } from './helm.ts'
import { eventually, getOrNull, makeNamespace } from './namespace.ts'
import { asking, startOutside } from './outside.ts'
import { type RealCluster, startRealCluster } from './real-node.ts'
import { specWith } from './world.ts'

/**
 * Packets of pods, held back by a plugin that keeps NetworkPolicies: kube-router, which has to be brought, because it is not among the pinned modules.
 *
 *     apt-get install ipset
 *     go install github.com/cloudnativelabs/kube-router/v2/cmd/kube-router@v2.11.0
 *     KUBE_ROUTER=$(go env GOPATH)/bin/kube-router npm run test:cluster -- enforcement
 */
const KUBE_ROUTER = process.env['KUBE_ROUTER']
const able = KUBE_ROUTER ? await canRunNode() : { ok: false, reason: 'KUBE_ROUTER names no kube-router' }
if (!able.ok) console.warn(`Network policies are not tried: ${'reason' in able ? able.reason : ''}`)
jest.setTimeout(120_000)

const OUTSIDE = ['203.0.113.7', '203.0.113.8', '198.51.100.1', '10.9.1.1', '10.20.0.9', '169.254.7.7']
const TARGETS = [...OUTSIDE.map((address) => `${address}:443`), '203.0.113.7:53', '169.254.7.7:53']

const RULES: Record<string, Pick<SandboxSpec, 'allowOut' | 'denyOut'>> = {
  'no rules': { allowOut: [], denyOut: [] },
  'one range': { allowOut: ['203.0.113.0/24', '10.9.0.0/16'], denyOut: [] },
  'all but one': { allowOut: [], denyOut: ['203.0.113.7', 'example.com'] },
  'nothing inside': { allowOut: ['10.0.0.0/8', '169.254.7.7'], denyOut: [] },
}
const REACHED: Record<string, string[]> = {
  'no rules': ['203.0.113.7:443', '203.0.113.8:443', '198.51.100.1:443', '10.20.0.9:443', '203.0.113.7:53'],
  'one range': ['203.0.113.7:443', '203.0.113.8:443', '10.20.0.9:443', '203.0.113.7:53'],
  'all but one': ['203.0.113.8:443', '198.51.100.1:443', '10.20.0.9:443'],
  'nothing inside': ['10.20.0.9:443'],
}

;(able.ok ? describe : describe.skip)('where the network keeps policies', () => {
  const cleanup = new AsyncDisposableStack()
  const names: Record<string, string> = {}
  let real: RealCluster
  let namespace: string
  let driver: KubernetesDriver
  let ofChart: Rendered[]

  const policies = (name?: string): string => pathOf('networkpolicies', namespace, name)
  const running = (name: string): Promise<Pod> =>
    eventually(
      () => getOrNull<Pod>(real.kube, pathOf('pods', namespace, name)),
      ({ status }) => status?.containerStatuses?.[0]?.state?.running !== undefined,
      60_000,
    )
  let asked = 0
  const reached = async (rules: string): Promise<string[]> => {
    const { status } = await running(names[rules] ?? '')
    const [container] = (status?.containerStatuses ?? []) as { containerID?: string }[]
    const id = container?.containerID?.replace('containerd://', '') ?? ''
    const command = ['node', '-e', asking(TARGETS)]
    return JSON.parse(await real.node.ctr('tasks', 'exec', '--exec-id', `ask-${asked++}`, id, ...command)) as string[]
  }
  /** Plugins take a moment, and so does a machine that does other things. */
  const comesToReach = async (rules: string, expected: string[]): Promise<void> => {
    const isSo = (all: string[]): boolean => JSON.stringify(all) === JSON.stringify(expected)
    await eventually(() => reached(rules), isSo, 30_000).catch(async () =>
      expect(await reached(rules)).toEqual(expected),
    )
  }

  beforeAll(async () => {
    real = cleanup.use(await startRealCluster(['opencode']))
    cleanup.use(await startOutside(OUTSIDE, [443, 53]))
    const helm = cleanup.use(await openHelm())
    namespace = await makeNamespace(real.kube)
    const objects = await helm.template({
      ...WITH_SECRETS,
      sandbox: { api: 'pod', namespace, instance: 'lap', imagePullPolicy: 'Never', resources: { requests: { cpu: '10m', memory: '64Mi' }, limits: { cpu: '1', memory: '1Gi' } } },
      networkPolicy: { sandboxes: { allowedRanges: ['10.20.0.0/24'] } },
    }) // prettier-ignore
    ofChart = objectsOf(objects, 'NetworkPolicy').filter(({ metadata }) => metadata.name.includes('-sandboxes'))
    const { unschedulableMs, ...settings } = loadConfig(settingsOf(objects)).k8s
    driver = cleanup.use(
      createKubernetesDriver({
        client: createKubeClient(loadCredentials(real.cluster.kubeconfig.tester)),
        settings: { ...settings, installation: randomUUID(), priorityClassName: null, serviceAccountName: null },
        access: { by: 'pod-ip' },
        mayReadNodes: true,
        unschedulableMs,
      }),
    )
    for (const [rules, egress] of Object.entries(RULES)) {
      const spec = specWith({ ...egress, image: real.images['opencode'] ?? '' })
      await driver.create(spec)
      await running((names[rules] = spec.name))
    }
  }, 1_500_000)
  afterAll(() => cleanup.disposeAsync(), 60_000)

  test('without a plugin policies hold nobody back', async () => {
    for (const rules of Object.keys(RULES)) await comesToReach(rules, TARGETS)
  })

  test('a sandbox reaches what the policies of chart and agent open together, and nothing else', async () => {
    for (const policy of ofChart) await real.kube.create(policies(), policy)
    const { kubeconfig } = real.cluster
    const parts = ['--run-firewall=true', '--run-router=false', '--run-service-proxy=false', '--enable-cni=false']
    const at = [`--kubeconfig=${kubeconfig.admin}`, `--hostname-override=${real.node.name}`]
    const router = spawn(KUBE_ROUTER ?? '', [...parts, ...at, '--health-port=0', '--metrics-port=0'], {
      stdio: 'ignore',
    })
    cleanup.defer(async () => {
      const ended = once(router, 'exit')
      if (router.kill('SIGTERM')) await ended
      await run(KUBE_ROUTER ?? '', ['--cleanup-config'])
    })
    for (const rules of Object.keys(RULES)) await comesToReach(rules, REACHED[rules] ?? [])
  })

  test('without the policies of the chart one with rules reaches no more, one without everything', async () => {
    for (const { metadata } of ofChart) await real.kube.remove(policies(metadata.name))
    for (const rules of Object.keys(RULES))
      await comesToReach(rules, rules === 'no rules' ? TARGETS : (REACHED[rules] ?? []))
  })

  test('policies go when their sandboxes have', async () => {
    for (const name of Object.values(names)) await driver.remove(name)
    const left = async () => (await real.kube.get<{ items: unknown[] }>(policies())).items
    await eventually(left, (items) => items.length === 0, 60_000)
  })
})
