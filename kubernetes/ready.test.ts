import { createHash } from 'node:crypto'
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { Agent } from 'undici'
import type { Health } from '../domain/supervisor-protocol.ts'
import type { Evidence, SandboxSpec } from '../sandbox/driver.ts'
import { createCopiedCluster } from '../test/copied-cluster.ts'
import type { CopiedCluster } from '../test/copied-cluster.ts'
import { fixedCredentials } from '../test/scripted-cluster.ts'
import { createKubeClient } from './client.ts'
import type { KubeObject, Pod } from './objects.ts'
import { awaitReady } from './ready.ts'

const spec: SandboxSpec = {
  sandboxId: '1',
  name: 'lap-1',
  agentId: 'agent-1',
  templateHash: 'hash',
  purpose: 'session',
  harnessId: 'opencode',
  image: 'image',
  repoUrl: 'https://example.com/repo',
  branch: 'main',
  resources: null,
  allowOut: [],
  denyOut: [],
  setupCommand: null,
  env: { SOME: 'value' },
  token: 'the token',
}

const object = (version: string, annotations = {}): KubeObject => ({
  metadata: { name: spec.name, uid: 'object-uid', resourceVersion: version, annotations },
})
const pod = (version: string, status: Pod['status']): Pod => ({
  metadata: { name: spec.name, uid: 'pod-uid', resourceVersion: version },
  spec: { nodeName: 'node-1' },
  status: { phase: 'Running', podIP: '127.0.0.1', hostIP: '127.0.0.1', ...status },
})
const runs: Pod['status'] = { containerStatuses: [{ name: 'harness', state: { running: {} } }] }

const health = (state: Health['state'], more: Partial<Health> = {}): Health => ({
  state,
  phase: null,
  sandbox_id: '1',
  template_hash: 'hash',
  epoch: null,
  harness: { id: 'opencode', running: false, pid: null, restarts: 0 },
  running_turn: null,
  journal_seq: 0,
  failure: null,
  ...more,
})

type Answer = (response: http.ServerResponse, body: Record<string, unknown>) => void
let cluster: CopiedCluster['cluster']
let objects: CopiedCluster['objects']
let pods: CopiedCluster['pods']
let supervisor: http.Server
let port: number
let answers: Answer[]
let asked: Record<string, unknown>[]
let agent: Agent

/** Says the lines one after the other, then ends. */
const says =
  (...lines: Health[]): Answer =>
  (response) =>
    void response.writeHead(200).end(lines.map((line) => `${JSON.stringify(line)}\n`).join(''))

beforeEach(async () => {
  answers = []
  asked = []
  agent = new Agent()
  supervisor = http.createServer((request, response) => {
    void text(request).then((body) => {
      const known = createHash('sha256').update(`Bearer ${spec.token}`).digest('hex')
      const shown = createHash('sha256')
        .update(request.headers.authorization ?? '')
        .digest('hex')
      if (request.url !== '/configure' || shown !== known) return void response.writeHead(401).end()
      asked.push(JSON.parse(body) as Record<string, unknown>)
      return (answers.shift() ?? says(health('booted')))(response, asked.at(-1)!)
    })
  })
  supervisor.listen(0, '127.0.0.1')
  await once(supervisor, 'listening')
  port = (supervisor.address() as AddressInfo).port
  const server = 'http://127.0.0.1:9'
  ;({ cluster, objects, pods } = createCopiedCluster(createKubeClient(fixedCredentials(server))))
})

afterEach(async () => {
  await agent.destroy()
  supervisor.closeAllConnections()
  supervisor.close()
})

const wait = (
  options: {
    deadlineMs?: number
    purpose?: SandboxSpec['purpose']
    signal?: AbortSignal
    alive?: boolean
    inspect?: () => Promise<Evidence>
  } = {},
) => {
  const phases: string[] = []
  const inspect = options.inspect ?? (async () => ({ exists: true, alive: options.alive ?? false }))
  const context = { cluster, agent, unschedulableMs: 50, inspect }
  const done = awaitReady(context, { ...spec, purpose: options.purpose ?? 'session' }, port, {
    deadlineMs: options.deadlineMs ?? 5_000,
    signal: options.signal ?? new AbortController().signal,
    onProgress: (phase) => phases.push(phase),
  })
  done.catch(() => undefined)
  return { done, phases }
}

test('a sandbox is told what it is when it runs, and is ready when it says so', async () => {
  answers.push(says(health('booting', { phase: 'cloning_repo' }), health('booted')))
  const { done, phases } = wait()
  objects.set(object('1'))
  pods.set(pod('2', { phase: 'Pending' }))
  pods.set(pod('3', runs))
  await expect(done).resolves.toEqual({ endpoint: `http://127.0.0.1:${port}`, podUid: 'pod-uid' })
  expect(phases.slice(0, 2)).toEqual(['pod_pending', 'pod_running'])
  expect(asked).toEqual([
    {
      sandbox_id: '1',
      template_hash: 'hash',
      purpose: 'session',
      harness: { id: 'opencode' },
      repo_url: 'https://example.com/repo',
      branch: 'main',
      setup_command: null,
      env: { SOME: 'value' },
    },
  ])
})

test('one for the pool is not ready before it is warm', async () => {
  let response: http.ServerResponse | undefined
  answers.push((one) => {
    response = one
    one.writeHead(200).write(`${JSON.stringify(health('booted'))}\n`)
  })
  objects.set(object('1'))
  pods.set(pod('2', runs))
  const { done } = wait({ purpose: 'pool' })
  const early = await Promise.race([done, new Promise((resolve) => setTimeout(resolve, 150, 'waiting'))])
  expect(early).toBe('waiting')
  response?.write(`${JSON.stringify(health('warm'))}\n`)
  await expect(done).resolves.toMatchObject({ podUid: 'pod-uid' })
})

test('a conversation that breaks is begun anew with the same words', async () => {
  answers.push(
    (response) => void response.destroy(),
    (response) => void response.writeHead(503).end(),
    says(health('booting', { phase: 'cloning_repo' })),
    says(health('booted')),
  )
  objects.set(object('1'))
  pods.set(pod('2', runs))
  await wait().done
  expect(asked.length).toBe(4)
  expect(asked[2]).toEqual(asked[0])
})

test('what a supervisor says of its failure is the failure', async () => {
  answers.push(says(health('failed', { failure: { code: 'clone_failed', message: 'no such repository' } })))
  objects.set(object('1'))
  pods.set(pod('2', runs))
  await expect(wait().done).rejects.toMatchObject({
    name: 'SandboxFailedError',
    failure: { code: 'clone_failed', message: 'no such repository', evidence: { exists: true, alive: false } },
  })
})

test.each<[string, () => void, string]>([
  [
    'its container ends',
    () => pods.set(pod('9', { containerStatuses: [{ name: 'harness', state: { terminated: { exitCode: 3 } } }] })),
    'harness_exited',
  ],
  ['its object is deleted', () => objects.drop(object('9')), 'sandbox_lost'],
  [
    'no node has room for longer than it may',
    () =>
      pods.set(
        pod('9', {
          phase: 'Pending',
          conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable' }],
        }),
      ),
    'unschedulable',
  ],
])('it fails at once when %s', async (_what, change, code) => {
  objects.set(object('1'))
  pods.set(pod('2', { phase: 'Pending' }))
  const { done } = wait()
  await new Promise((resolve) => setTimeout(resolve, 20))
  change()
  const startedAt = performance.now()
  await expect(done).rejects.toMatchObject({ failure: { code } })
  expect(performance.now() - startedAt).toBeLessThan(1_000)
})

test('no room that is found in time is no failure', async () => {
  objects.set(object('1'))
  const conditions = [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable' }]
  pods.set(pod('2', { phase: 'Pending', conditions }))
  const { done } = wait()
  await new Promise((resolve) => setTimeout(resolve, 20))
  pods.set(pod('3', runs))
  await expect(done).resolves.toMatchObject({ podUid: 'pod-uid' })
})

test('while nodes look dead because the API server was away, no pod that finds none has failed', async () => {
  cluster.wasAway = () => true
  objects.set(object('1'))
  const conditions = [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable' }]
  pods.set(pod('2', { phase: 'Pending', conditions }))
  const { done } = wait()
  await new Promise((resolve) => setTimeout(resolve, 300))
  pods.set(pod('3', runs))
  await expect(done).resolves.toMatchObject({ podUid: 'pod-uid' })
})

test('after the deadline it says where it stands', async () => {
  answers.push((response) => void response.writeHead(503).end('not yet'))
  supervisor.on('request', () => answers.push((response) => void response.writeHead(503).end('not yet')))
  objects.set(object('1'))
  pods.set(pod('2', runs))
  const failure = {
    code: 'start_timeout',
    message: expect.stringContaining('cannot be reached: the supervisor answered 503'),
  }
  await expect(wait({ deadlineMs: 300 }).done).rejects.toMatchObject({ failure })
})

test('whoever does not want it any more is let go', async () => {
  const stop = new AbortController()
  objects.set(object('1'))
  const { done } = wait({ signal: stop.signal })
  stop.abort(new Error('cancelled'))
  await expect(done).rejects.toThrow('cancelled')
})

test('a start does not fail by a copy that is behind', async () => {
  objects.set(object('1', { 'lap/pod-uid': 'pod-uid' }))
  const { done } = wait({ alive: true })
  await new Promise((resolve) => setTimeout(resolve, 10))
  pods.set(pod('2', runs))
  await expect(done).resolves.toMatchObject({ podUid: 'pod-uid' })
})

test('a failure that the API server cannot confirm is told when it can', async () => {
  let asked = 0
  const inspect = async (): Promise<Evidence> => {
    if (++asked === 1) throw new Error('away')
    return { exists: true, alive: false }
  }
  objects.set(object('1'))
  pods.set(pod('2', { phase: 'Failed', reason: 'Evicted' }))
  await expect(wait({ inspect }).done).rejects.toMatchObject({ failure: { code: 'sandbox_lost' } })
  expect(asked).toBe(2)
})
