import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { createCopiedCluster } from '../test/copied-cluster.ts'
import type { CopiedCluster } from '../test/copied-cluster.ts'
import { startScriptedCluster } from '../test/scripted-cluster.ts'
import type { ScriptedCluster } from '../test/scripted-cluster.ts'
import { createConfirm } from './confirm.ts'
import { lossOf } from './evidence.ts'
import { watchLost } from './lost.ts'
import type { KubeObject, Node, Pod } from './objects.ts'

const PODS = '/api/v1/namespaces/sandboxes/pods'
const SANDBOXES = '/apis/agents.x-k8s.io/v1beta1/namespaces/sandboxes/sandboxes'
const NAME = 'lap-1'

const object = (name: string, version: string, annotations = {}): KubeObject => ({
  metadata: { name, uid: `object-${name}`, resourceVersion: version, annotations },
})
const pod = (name: string, version: string, status: Pod['status'] = {}): Pod => ({
  metadata: { name, uid: `pod-${name}`, resourceVersion: version },
  spec: { nodeName: 'node-1', containers: [{ name: 'harness' }] },
  status: { phase: 'Running', podIP: '127.0.0.1', hostIP: '127.0.0.1', ...status },
})
const runs: Pod['status'] = { containerStatuses: [{ name: 'harness', state: { running: {} } }] }
const node = (status: string, version = '1'): Node => ({
  metadata: { name: 'node-1', uid: 'node-uid', resourceVersion: version },
  status: { conditions: [{ type: 'Ready', status }] },
})

let server: ScriptedCluster
let { cluster, objects, pods, nodes }: CopiedCluster = {} as CopiedCluster
let stop: AbortController

beforeEach(async () => {
  server = await startScriptedCluster()
  ;({ cluster, objects, pods, nodes } = createCopiedCluster(server.client))
  stop = new AbortController()
})
afterEach(async () => {
  stop.abort()
  await server[Symbol.asyncDispose]()
})

/** In the copies and at the API server. */
const running = (name: string): void => {
  const [itself, its] = [object(name, '1', { 'lap/pod-uid': `pod-${name}` }), pod(name, '2', runs)]
  server.answers.set(`${SANDBOXES}/${name}`, itself)
  server.answers.set(`${PODS}/${name}`, its)
  objects.set(itself)
  pods.set(its)
}

const settle = (): Promise<unknown> => new Promise((resolve) => setTimeout(resolve, 10))

const watching = async (confirm: (name: string) => Promise<boolean> = async () => true): Promise<string[]> => {
  const lost: string[] = []
  watchLost(cluster, { onLost: (name) => lost.push(name), confirm, signal: stop.signal })
  await settle()
  return lost
}

const toBeTold = async (lost: string[], count: number): Promise<void> => {
  for (const deadline = Date.now() + 4_000; lost.length < count && Date.now() < deadline;) await settle()
  expect(lost.length).toBe(count)
}

test('a sandbox that ran is told lost once, one that never ran is not', async () => {
  const lost = await watching()
  objects.set(object(NAME, '1'))
  pods.set(pod(NAME, '2', { phase: 'Pending' }))
  pods.set(pod(NAME, '3', { phase: 'Failed', reason: 'OutOfcpu' }))
  await settle()
  expect(lost).toEqual([])
  pods.set(pod(NAME, '4', runs))
  pods.set(pod(NAME, '5', { phase: 'Failed', reason: 'Evicted' }))
  await settle()
  pods.drop(pod(NAME, '5'))
  objects.drop(object(NAME, '6'))
  await settle()
  expect(lost).toEqual([NAME])
})

test('a pod that is deleted under its Sandbox is lost, though the controller makes another', async () => {
  const lost = await watching()
  objects.set(object(NAME, '1', { 'lap/pod-uid': `pod-${NAME}` }))
  pods.set(pod(NAME, '2', runs))
  pods.drop(pod(NAME, '3'))
  pods.set({ ...pod(NAME, '4', runs), metadata: { name: NAME, uid: 'another', resourceVersion: '4' } })
  await settle()
  expect(lost).toEqual([NAME])
})

test('what the API server does not confirm, or not answer, is not lost yet, and is asked again without any change', async () => {
  const answers = [async () => false, async () => Promise.reject(new Error('away')), async () => true]
  const lost = await watching(() => answers.shift()!())
  running(NAME)
  pods.set(pod(NAME, '3', { phase: 'Failed', reason: 'Evicted' }))
  await settle()
  expect(lost).toEqual([])
  await toBeTold(lost, 1)
  expect(answers).toEqual([])
})

test('what looks well again is not asked about any more, and may still be lost', async () => {
  let isLost = false
  let asked = 0
  const lost = await watching(async () => (asked++, isLost))
  running(NAME)
  nodes.set(node('Unknown'))
  await settle()
  nodes.set(node('True', '2'))
  await new Promise((resolve) => setTimeout(resolve, 1_100))
  expect([asked, lost]).toEqual([1, []])
  isLost = true
  nodes.set(node('Unknown', '3'))
  await toBeTold(lost, 1)
})

test('a node takes all its sandboxes with it, and is asked for once', async () => {
  const lost = await watching(createConfirm(cluster))
  const names = Array.from({ length: 300 }, (_, i) => `lap-${i}`)
  for (const name of names) running(name)
  nodes.set(node('True'))
  server.answers.set('/api/v1/nodes/node-1', node('Unknown', '2'))
  nodes.set(node('Unknown', '2'))
  await toBeTold(lost, names.length)
  expect(lost.toSorted()).toEqual(names.toSorted())
  expect(server.asked).toEqual(['GET /api/v1/nodes/node-1'])
})

test('a node that is well by now, or whose kubelet says itself that it is not, keeps its sandboxes', async () => {
  running(NAME)
  nodes.set(node('Unknown'))
  const confirm = createConfirm(cluster)
  for (const status of ['True', 'False']) {
    server.answers.set('/api/v1/nodes/node-1', node(status))
    expect(await confirm(NAME)).toBe(false)
  }
  server.answers.delete('/api/v1/nodes/node-1')
  expect(await confirm(NAME)).toBe(true)
})

test.each<[string, () => void, boolean]>([
  ['its pod is gone', () => server.answers.delete(`${PODS}/${NAME}`), true],
  ['its object is gone', () => server.answers.delete(`${SANDBOXES}/${NAME}`), true],
  [
    'its pod has failed',
    () => server.answers.set(`${PODS}/${NAME}`, pod(NAME, '9', { phase: 'Failed', reason: 'Evicted' })),
    true,
  ],
  ['nothing is wrong with it', () => undefined, false],
])('the API server is asked for object and pod alone: %s', async (_what, change, lost) => {
  running(NAME)
  pods.drop(pod(NAME, '3'))
  change()
  expect(await createConfirm(cluster)(NAME)).toBe(lost)
  expect(server.asked.toSorted()).toEqual([`GET ${PODS}/${NAME}`, `GET ${SANDBOXES}/${NAME}`])
})

test('one that was never marked is looked at whole: its pod may have been made anew elsewhere', async () => {
  running(NAME)
  objects.set(object(NAME, '3'))
  nodes.set(node('Unknown'))
  server.answers.set('/api/v1/nodes/node-1', node('Unknown'))
  const elsewhere = { ...pod(NAME, '4', runs), spec: { nodeName: 'node-2' } }
  server.answers.set(`${PODS}/${NAME}`, elsewhere)
  server.answers.set(`${SANDBOXES}/${NAME}`, object(NAME, '3'))
  server.answers.set('/api/v1/nodes/node-2', node('True'))
  expect(await createConfirm(cluster)(NAME)).toBe(false)
})

test('what is not known is not lost', async () => {
  running(NAME)
  server.answers.set(`${PODS}/${NAME}`, { refuse: 403 })
  await expect(createConfirm(cluster)(NAME)).rejects.toMatchObject({ name: 'KubeError' })
})

test('the log of a node of which nothing is heard is not waited for', async () => {
  running(NAME)
  server.answers.set(`${PODS}/${NAME}/log`, 'a line\n')
  server.answers.set('/api/v1/nodes/node-1', node('Unknown'))
  nodes.set(node('True'))
  await expect(lossOf(cluster, NAME)).resolves.toMatchObject({ evidence: { logTail: ['a line'] } })
  nodes.set(node('Unknown', '2'))
  const { code, evidence } = await lossOf(cluster, NAME)
  expect(code).toBe('sandbox_lost')
  expect(evidence).toMatchObject({ alive: false, details: { logs_error: expect.stringContaining('node-1') } })
  expect(evidence.logTail).toBeUndefined()
  expect(server.asked.filter((what) => what.includes('/log')).length).toBe(1)
})
