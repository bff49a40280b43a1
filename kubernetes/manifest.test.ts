import { expect, test } from '@jest/globals'
import type { SandboxSpec } from '../sandbox/driver.ts'
import { claimedPatch, objectOf, podPatch, readyPatch, sandboxPatch, serviceOf, tokenHash } from './manifest.ts'
import type { PodSettings } from './manifest.ts'

const spec: SandboxSpec = {
  sandboxId: '0b6c3a52-6f0a-4f0e-9b1c-0d7f6f1f2a3b',
  name: 'lap-0b6c3a52-6f0a-4f0e-9b1c-0d7f6f1f2a3b',
  agentId: '7d1d2c5e-1111-4222-8333-444455556666',
  templateHash: '0123456789abcdef0123456789abcdef',
  purpose: 'pool',
  harnessId: 'opencode',
  image: 'opencode-sandbox:dev',
  repoUrl: 'https://github.com/example/private-name',
  branch: 'secret-branch',
  resources: null,
  allowOut: [],
  denyOut: [],
  setupCommand: 'make private-target',
  env: { PRIVATE_VALUE: 'value-of-the-agent' },
  token: 'token-of-the-sandbox',
}

const settings = (changes: Partial<PodSettings> = {}): PodSettings => ({
  api: 'sandbox',
  namespace: 'sandboxes',
  instance: 'lap',
  installation: 'this-one',
  imagePullPolicy: 'IfNotPresent',
  imagePullSecrets: [],
  resources: { requests: { cpu: '250m', memory: '512Mi' }, limits: { memory: '2Gi' } },
  workSize: '10Gi',
  supervisorPort: 4090,
  egress: { blocked: ['10.0.0.0/8'], allowed: [], dnsPodLabels: { 'k8s-app': 'kube-dns' } },
  priorityClassName: null,
  runtimeClassName: null,
  serviceAccountName: null,
  nodeSelector: {},
  tolerations: [],
  ...changes,
})

type AnyPodSpec = Record<string, unknown> & { containers: Record<string, unknown>[] }

const podSpecOf = (object: ReturnType<typeof objectOf>): AnyPodSpec =>
  'podTemplate' in object.spec ? object.spec.podTemplate.spec : object.spec

test.each(['sandbox', 'pod'] as const)(
  'nothing of token, configuration and environment is in the objects (%s)',
  (api) => {
    const text = JSON.stringify([
      objectOf(spec, settings({ api })),
      serviceOf(spec, settings({ api }), { uid: 'uid-1', anyNode: false }),
    ])
    for (const secret of [
      spec.token,
      spec.repoUrl,
      spec.branch,
      'make private-target',
      'PRIVATE_VALUE',
      'value-of-the-agent',
    ])
      expect(text).not.toContain(secret)
    expect(text).toContain(tokenHash(spec.token))
  },
)

test.each(['sandbox', 'pod'] as const)('a pod with a policy of its own says so, no other does (%s)', (api) => {
  const labelsWith = (rules: Partial<SandboxSpec>) => {
    const object = objectOf({ ...spec, ...rules }, settings({ api }))
    const { labels } = 'podTemplate' in object.spec ? object.spec.podTemplate.metadata : object.metadata
    return [object.metadata.labels, labels]
  }
  for (const labels of labelsWith({ denyOut: ['192.0.2.1'] })) expect(labels).toMatchObject({ 'lap/egress': 'own' })
  for (const rules of [{}, { denyOut: ['example.com'] }, { allowOut: ['192.0.2.1', 'example.com'] }])
    for (const labels of labelsWith(rules)) expect(labels).not.toHaveProperty('lap/egress')
})

test.each(['sandbox', 'pod'] as const)('a pod can neither gain privileges nor talk to the API server (%s)', (api) => {
  const pod = podSpecOf(objectOf(spec, settings({ api })))
  expect(pod).toMatchObject({
    restartPolicy: 'Never',
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    hostNetwork: false,
    hostPID: false,
    hostIPC: false,
    securityContext: { runAsNonRoot: true, runAsUser: 1_000, seccompProfile: { type: 'RuntimeDefault' } },
  })
  for (const container of pod.containers)
    expect(container).toMatchObject({
      imagePullPolicy: 'IfNotPresent',
      resources: { requests: { cpu: '250m', memory: '512Mi' }, limits: { memory: '2Gi' } },
      securityContext: {
        allowPrivilegeEscalation: false,
        privileged: false,
        runAsNonRoot: true,
        capabilities: { drop: ['ALL'] },
        seccompProfile: { type: 'RuntimeDefault' },
      },
    })
})

test.each(['sandbox', 'pod'] as const)('an agent’s own resources go before those of the settings (%s)', (api) => {
  const [container] = podSpecOf(
    objectOf({ ...spec, resources: { limits: { memory: '8Gi' } } }, settings({ api })),
  ).containers
  expect(container?.['resources']).toEqual({ requests: { cpu: '250m', memory: '512Mi' }, limits: { memory: '8Gi' } })
})

test('a Sandbox has the labels of its pod in its template, a Pod has them itself', () => {
  const labels = {
    'app.kubernetes.io/managed-by': 'lap',
    'lap/instance': 'lap',
    'lap/installation': 'this-one',
    'lap/sandbox': spec.sandboxId,
    'lap/agent': spec.agentId,
    'lap/template': spec.templateHash,
    'lap/purpose': 'pool',
    'lap/state': 'starting',
  }
  const annotations = { 'cluster-autoscaler.kubernetes.io/safe-to-evict': 'true' }
  expect(objectOf(spec, settings())).toMatchObject({
    apiVersion: 'agents.x-k8s.io/v1beta1',
    kind: 'Sandbox',
    metadata: { name: spec.name, namespace: 'sandboxes', labels },
    spec: { operatingMode: 'Running', service: false, podTemplate: { metadata: { labels, annotations } } },
  })
  expect(objectOf(spec, settings({ api: 'pod' }))).toMatchObject({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: spec.name, namespace: 'sandboxes', labels, annotations },
  })
})

test.each([
  ['priority class', { priorityClassName: 'lap-sandbox' }, { priorityClassName: 'lap-sandbox' }],
  ['runtime class', { runtimeClassName: 'gvisor' }, { runtimeClassName: 'gvisor' }],
  ['service account', { serviceAccountName: 'nobody' }, { serviceAccountName: 'nobody' }],
  ['node selector', { nodeSelector: { pool: 'agents' } }, { nodeSelector: { pool: 'agents' } }],
  ['image pull secrets', { imagePullSecrets: ['registry'] }, { imagePullSecrets: [{ name: 'registry' }] }],
])('a setting reaches the pod: %s', (_what, changes, expected) => {
  expect(podSpecOf(objectOf(spec, settings(changes)))).toMatchObject(expected)
  for (const key of Object.keys(expected)) expect(podSpecOf(objectOf(spec, settings()))).not.toHaveProperty(key)
})

test('tolerations of the installation come after those that shorten the wait for a node that is gone', () => {
  const own = { key: 'agents', operator: 'Exists' as const, effect: 'NoSchedule' as const }
  expect(podSpecOf(objectOf(spec, settings({ tolerations: [own] })))['tolerations']).toEqual([
    { key: 'node.kubernetes.io/not-ready', operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 30 },
    { key: 'node.kubernetes.io/unreachable', operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 30 },
    own,
  ])
})

test.each([
  ['sandbox', 'agents.x-k8s.io/v1beta1', 'Sandbox'],
  ['pod', 'v1', 'Pod'],
] as const)('a Service belongs to its %s and reaches a pod that is not ready yet', (api, apiVersion, kind) => {
  const service = serviceOf(spec, settings({ api }), { uid: 'uid-1', anyNode: false })
  expect(service.metadata.ownerReferences).toEqual([
    { apiVersion, kind, name: spec.name, uid: 'uid-1', blockOwnerDeletion: false },
  ])
  expect(service.spec).toMatchObject({
    type: 'NodePort',
    publishNotReadyAddresses: true,
    selector: { 'lap/instance': 'lap', 'lap/sandbox': spec.sandboxId },
    ports: [{ port: 4_090, targetPort: 4_090 }],
  })
})

test('a claim is written where budgets and autoscalers look, and where the controller copies from', () => {
  const patch = claimedPatch('session-1', null)
  const labels = { 'lap/state': 'claimed', 'lap/session': 'session-1' }
  const annotations = { 'cluster-autoscaler.kubernetes.io/safe-to-evict': 'false' }
  expect(podPatch(patch)).toEqual({ metadata: { labels, annotations } })
  expect(sandboxPatch(patch)).toEqual({
    metadata: { labels },
    spec: { podTemplate: { metadata: { labels, annotations } } },
  })
  // A pod that is made anew must not have it.
  expect(sandboxPatch(claimedPatch('session-1', 'uid-1'))).toEqual({
    metadata: { labels, annotations: { 'lap/pod-uid': 'uid-1' } },
    spec: { podTemplate: { metadata: { labels, annotations } } },
  })
})

test('the pod that became ready is kept on the Sandbox, not in its template', () => {
  const labels = { 'lap/state': 'ready' }
  expect(sandboxPatch(readyPatch('pod-uid'))).toEqual({
    metadata: { labels, annotations: { 'lap/pod-uid': 'pod-uid' } },
    spec: { podTemplate: { metadata: { labels } } },
  })
})

test.each([
  [false, 'Local'],
  [true, 'Cluster'],
])('a Service passes on to other nodes only if it is asked at any (%s)', (anyNode, policy) => {
  const service = serviceOf(spec, settings(), { uid: 'uid-1', anyNode })
  expect(service.spec.externalTrafficPolicy).toBe(policy)
})
