import { randomBytes, randomUUID } from 'node:crypto'
import { createKubeClient, type KubeCall, type KubeClient } from '../../kubernetes/client.ts'
import { loadCredentials } from '../../kubernetes/credentials.ts'
import { createKubernetesDriver, type KubernetesDriver, type KubernetesDriverOptions } from '../../kubernetes/driver.ts'
import type { PodSettings } from '../../kubernetes/manifest.ts'
import { pathOf, resourceOf, type SandboxApi } from '../../kubernetes/objects.ts'
import type { Access } from '../../kubernetes/cluster.ts'
import type { SandboxSpec } from '../../sandbox/driver.ts'
import type { Cluster } from '../../tools/cluster/control-plane.ts'
import { connectKube, type Kube, readAccess } from '../../tools/cluster/kube.ts'
import { getOrNull, makeNamespace } from './namespace.ts'
import { startSandboxController, type SandboxController } from './sandbox-controller.ts'
import { hasOwnController } from './sandboxes-crd.ts'
import { sharedKubeconfig, sharedPlacement } from './shared.ts'
import { startSupervisors, type Supervisors } from './supervisors.ts'

/** One request that the driver has sent. */
export type Sent = { method: string; path: string; watch: boolean; at: number }

export type DriverOptions = Partial<Pick<KubernetesDriverOptions, 'access' | 'mayReadNodes' | 'unschedulableMs'>> & {
  kubeconfig?: string
  settings?: Partial<PodSettings>
  /** What it sends goes here. */
  sent?: Sent[]
}

/** What the cluster may have under the name of a sandbox. */
type Kind = 'object' | 'pod' | 'service' | 'policy'

/** A namespace of its own with all that a driver needs: controller, supervisors, settings. */
export type World = AsyncDisposable & {
  api: SandboxApi
  namespace: string
  kube: Kube
  settings: PodSettings
  supervisors: Supervisors
  /** null with plain Pods, or where the cluster has one. */
  controller: SandboxController | null
  driver: KubernetesDriver
  /** What `driver` has sent, oldest first. */
  sent: Sent[]
  /** What the drivers said of themselves. */
  troubles: string[]
  /** Another one, as another worker has; ends with the world. */
  another(options?: DriverOptions): KubernetesDriver
  spec(more?: Partial<SandboxSpec>): SandboxSpec
  /** Path of an object of that name. */
  path(kind: Kind, name: string): string
  /** The object, or null. */
  find<T>(kind: Kind, name: string): Promise<T | null>
}

const IMAGE = 'registry.invalid/harness:1'

const recording = (client: KubeClient, sent: Sent[]): KubeClient => {
  const note = ({ method = 'GET', path, query }: KubeCall): void =>
    void sent.push({ method, path, watch: query?.['watch'] === true, at: Date.now() })
  return {
    server: client.server,
    json: (call) => (note(call), client.json(call)),
    text: (call) => (note(call), client.text(call)),
    lines: (call) => (note(call), client.lines(call)),
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  }
}

const settingsOf = (api: SandboxApi, namespace: string, supervisorPort: number): PodSettings => ({
  api,
  namespace,
  instance: 'lap',
  installation: randomUUID(),
  imagePullPolicy: 'IfNotPresent',
  imagePullSecrets: [],
  resources: { requests: { cpu: '250m', memory: '512Mi' }, limits: { cpu: '2', memory: '4Gi' } },
  workSize: '10Gi',
  priorityClassName: null,
  runtimeClassName: null,
  serviceAccountName: null,
  nodeSelector: {},
  tolerations: [],
  supervisorPort,
  egress: {
    blocked: ['10.0.0.0/8', '169.254.0.0/16', 'fc00::/7'],
    allowed: [],
    dnsPodLabels: { 'k8s-app': 'kube-dns' },
  },
})

/** Everything needed to start a sandbox, another one each time. */
export const specWith = (more: Partial<SandboxSpec> = {}): SandboxSpec => {
  const sandboxId = more.sandboxId ?? randomUUID()
  return {
    sandboxId,
    name: `lap-${sandboxId}`,
    agentId: randomUUID(),
    templateHash: 'a'.repeat(32),
    purpose: 'session',
    harnessId: 'opencode',
    image: IMAGE,
    repoUrl: 'https://git.invalid/repo',
    branch: 'main',
    resources: null,
    allowOut: [],
    denyOut: [],
    setupCommand: null,
    env: { PLAIN: 'value' },
    token: randomBytes(32).toString('base64url'),
    ...more,
  }
}

export type WorldOptions = {
  kubeconfig: Cluster['kubeconfig']
  api: SandboxApi
  access?: Access
  labels?: Record<string, string>
}

export const createWorld = async ({
  kubeconfig,
  api,
  access = { by: 'pod-ip' },
  labels = {},
}: WorldOptions): Promise<World> => {
  const kube = connectKube(await readAccess(kubeconfig.admin))
  const namespace = await makeNamespace(kube, labels)
  const supervisors = await startSupervisors({ kubeconfig: kubeconfig.controller, namespace })
  const standIn = api === 'sandbox' && !(await hasOwnController(kube))
  const controller = standIn ? await startSandboxController({ kubeconfig: kubeconfig.controller, namespace }) : null
  // A private cluster has fake nodes only.
  const isShared = kubeconfig.tester === sharedKubeconfig().tester
  const settings = { ...settingsOf(api, namespace, supervisors.port), ...(isShared ? sharedPlacement() : {}) }
  const drivers: KubernetesDriver[] = []
  const troubles: string[] = []
  const start = (options: DriverOptions, sent: Sent[]): KubernetesDriver => {
    const client = createKubeClient(loadCredentials(options.kubeconfig ?? kubeconfig.tester))
    const driver = createKubernetesDriver({
      client: recording(client, sent),
      settings: { ...settings, ...options.settings },
      access: options.access ?? access,
      mayReadNodes: options.mayReadNodes ?? true,
      unschedulableMs: options.unschedulableMs ?? 500,
      onTrouble: (reason) => troubles.push(reason),
    })
    drivers.push(driver)
    return driver
  }
  const sent: Sent[] = []
  const path: World['path'] = (kind, name) => {
    if (kind === 'service') return pathOf('services', namespace, name)
    if (kind === 'policy') return pathOf('networkpolicies', namespace, name)
    return pathOf(kind === 'pod' ? 'pods' : resourceOf(api), namespace, name)
  }
  return {
    api,
    namespace,
    kube,
    settings,
    supervisors,
    controller,
    driver: start({}, sent),
    sent,
    troubles,
    another: (options = {}) => start(options, options.sent ?? []),
    spec: specWith,
    path,
    find: (kind, name) => getOrNull(kube, path(kind, name)),
    [Symbol.asyncDispose]: async () => {
      await Promise.all(drivers.map((driver) => driver[Symbol.asyncDispose]()))
      await controller?.[Symbol.asyncDispose]()
      await supervisors[Symbol.asyncDispose]()
      await kube.remove(`/api/v1/namespaces/${namespace}`).catch(() => undefined)
      await kube[Symbol.asyncDispose]()
    },
  }
}

/** Waits as the platform does. */
export const becomesReady = (
  driver: KubernetesDriver,
  name: string,
  options: Partial<Parameters<KubernetesDriver['ready']>[1]> = {},
): Promise<{ endpoint: string }> =>
  driver.ready(name, { deadlineMs: 30_000, signal: new AbortController().signal, ...options })
