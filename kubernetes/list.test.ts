import { afterEach, beforeEach, expect, test } from '@jest/globals'
import type { ListedSandbox } from '../sandbox/driver.ts'
import { createCopiedCluster } from '../test/copied-cluster.ts'
import type { CopiedCluster } from '../test/copied-cluster.ts'
import { startScriptedCluster } from '../test/scripted-cluster.ts'
import type { ScriptedCluster } from '../test/scripted-cluster.ts'
import { listSandboxes } from './list.ts'
import { claimedPatch, readyPatch } from './manifest.ts'
import { unmarkedUid } from './mark.ts'
import type { KubeObject, Pod } from './objects.ts'

const SANDBOXES = '/apis/agents.x-k8s.io/v1beta1/namespaces/sandboxes/sandboxes'
const POLICIES = '/apis/networking.k8s.io/v1/namespaces/sandboxes/networkpolicies'

let server: ScriptedCluster
let copies: CopiedCluster

beforeEach(async () => {
  server = await startScriptedCluster()
  copies = createCopiedCluster(server.client)
  for (const path of [POLICIES, '/api/v1/nodes']) server.answers.set(path, { metadata: {}, items: [] })
})
afterEach(async () => server[Symbol.asyncDispose]())

type Marks = { labels?: Record<string, string>; annotations?: Record<string, string> }

const object = ({ labels = {}, annotations = {} }: Marks): KubeObject => ({
  metadata: { name: 'lap-1', uid: 'object-uid', labels, annotations },
})
const pod = ({ labels = {} }: Marks, ready = 'True'): Pod => ({
  metadata: { name: 'lap-1', uid: 'pod-uid', labels },
  status: {
    podIP: '10.0.0.7',
    conditions: [{ type: 'Ready', status: ready }],
    containerStatuses: [{ name: 'harness', state: { running: {} } }],
  },
})

const listed = async (object: KubeObject, ...pods: Pod[]) => {
  server.answers.set(SANDBOXES, { metadata: {}, items: [object] })
  server.answers.set('/api/v1/namespaces/sandboxes/pods', { metadata: {}, items: pods })
  return (await listSandboxes(copies.cluster))[0]
}

const ready = readyPatch('pod-uid')
const claimed = { ...ready, labels: claimedPatch('session-1', null).labels }
const over = { ...claimed, labels: { ...claimed.labels, 'lap/state': 'ready' } }

test.each<[string, KubeObject, Pod, Pick<ListedSandbox, 'isMarked' | 'sessionId'>]>([
  ['it waits', object(ready), pod(ready), { isMarked: true, sessionId: null }],
  ['it is in use', object(claimed), pod(claimed), { isMarked: true, sessionId: 'session-1' }],
  [
    'its UID is missing while it waits',
    object({ labels: ready.labels }),
    pod(ready),
    { isMarked: false, sessionId: null },
  ],
  [
    'its UID is missing while it is in use',
    object({ labels: claimed.labels }),
    pod(claimed),
    { isMarked: false, sessionId: 'session-1' },
  ],
  ['its pod was not reached', object(claimed), pod(ready), { isMarked: false, sessionId: null }],
  ['its object was not reached', object(ready), pod(claimed), { isMarked: false, sessionId: null }],
  ['a late word that it is ready came over its claim', object(over), pod(over), { isMarked: false, sessionId: null }],
  ['the same, on its pod alone', object(claimed), pod(over), { isMarked: false, sessionId: null }],
])('its marks: %s', async (_what, itself, its, marks) => {
  expect(await listed(itself, its)).toMatchObject({ alive: true, ...marks })
})

test('one that was in use has lost its pod, also where nothing says which it was', async () => {
  expect(await listed(object({ labels: claimed.labels }))).toMatchObject({ alive: false })
  expect(await listed(object({ labels: { 'lap/state': 'starting' } }))).toMatchObject({ alive: true })
})

test('a missing UID is that of a pod that came up, and of no other', () => {
  const seen = (itself: KubeObject, its: Pod) =>
    unmarkedUid({ api: 'sandbox', object: itself, pod: its, node: undefined, nodesKnown: false })
  expect(seen(object({}), pod({}))).toBe('pod-uid')
  expect(seen(object({}), pod({}, 'False'))).toBe(null)
  expect(seen(object({ annotations: { 'lap/pod-uid': 'another' } }), pod({}))).toBe(null)
})
