import { expect, test } from '@jest/globals'
import type { ContainerState, Pod, Sandbox } from './objects.ts'
import { asLoss, verdictOf } from './status.ts'
import type { Seen } from './status.ts'

const name = 'lap-1'
const graces = { unschedulableMs: 3_000 }

const sandbox = (changes: Partial<Sandbox['metadata']> = {}, ready?: { reason: string; message: string }): Sandbox => ({
  metadata: { name, uid: 'object-uid', ...changes },
  status: { conditions: ready === undefined ? [] : [{ type: 'Ready', status: 'False', ...ready }] },
})

const running: ContainerState = { running: { startedAt: '2026-11-21T10:00:00Z' } }

const pod = (status: Pod['status'], metadata: Partial<Pod['metadata']> = {}): Pod => ({
  metadata: { name, uid: 'pod-uid', ...metadata },
  spec: { nodeName: 'node-1', containers: [{ name: 'harness' }] },
  status: { phase: 'Running', podIP: '10.0.0.7', hostIP: '192.168.0.2', ...status },
})

const withContainer = (state: ContainerState, container = 'harness'): Pod =>
  pod({ containerStatuses: [{ name: container, state }] })

const seen = (changes: Partial<Seen>): Seen => ({
  api: 'sandbox',
  object: sandbox(),
  pod: undefined,
  node: undefined,
  nodesKnown: false,
  ...changes,
})

const healthy = withContainer(running)
const node = (status: string) => ({ metadata: { name: 'node-1' }, status: { conditions: [{ type: 'Ready', status }] } })

test.each<[string, Partial<Seen>]>([
  ['the controller has not made a pod', {}],
  ['no node was chosen yet', { pod: pod({ phase: 'Pending' }) }],
  [
    'the image is being pulled',
    {
      pod: pod({
        phase: 'Pending',
        containerStatuses: [{ name: 'harness', state: { waiting: { reason: 'ContainerCreating' } } }],
      }),
    },
  ],
  [
    'a container runs and another does not',
    {
      pod: pod({
        containerStatuses: [
          { name: 'harness', state: running },
          { name: 'vault', state: { waiting: { reason: 'ContainerCreating' } } },
        ],
      }),
    },
  ],
  [
    'it has no address',
    { pod: { ...healthy, status: { phase: 'Running', containerStatuses: [{ name: 'harness', state: running }] } } },
  ],
  [
    'the controller waits for its dependencies',
    { object: sandbox({}, { reason: 'DependenciesNotReady', message: 'pod is not ready' }) },
  ],
  [
    'the controller had an error that passes',
    {
      object: sandbox(
        {},
        { reason: 'ReconcilerError', message: 'the object has been modified; please apply your changes' },
      ),
    },
  ],
])('it is starting while %s', (_why, what) => {
  expect(verdictOf(seen(what), graces)).toEqual({ is: 'starting', phase: 'pod_pending' })
})

test.each([
  ['no condition', [], false],
  ['not Ready', [{ type: 'Ready', status: 'False' }], false],
  ['Ready', [{ type: 'Ready', status: 'True' }], true],
])('it runs when all containers run: %s', (_what, conditions, ready) => {
  const one = pod({ conditions, containerStatuses: [{ name: 'harness', state: running }] })
  const expected = { is: 'running', podUid: 'pod-uid', podIp: '10.0.0.7', hostIp: '192.168.0.2', ready }
  expect(verdictOf(seen({ pod: one }), graces)).toEqual(expected)
  expect(verdictOf(seen({ api: 'pod', object: one, pod: one }), graces)).toEqual(expected)
})

const waiting = (reason: string, message?: string): Pod =>
  withContainer({ waiting: { reason, ...(message === undefined ? {} : { message }) } })
const ended = (exitCode: number, more: { reason?: string; message?: string } = {}, container = 'harness'): Pod =>
  withContainer({ terminated: { exitCode, ...more } }, container)

test('a webhook that is down, said by the controller, may come back within its grace', () => {
  const message = 'Internal error occurred: failed calling webhook "pods.example.com": connection refused'
  const object = sandbox({}, { reason: 'ReconcilerError', message })
  expect(verdictOf(seen({ object }), graces)).toMatchObject({ is: 'failing', code: 'setup_failed', graceMs: 3_000 })
})

test.each<[string, Partial<Seen>, string]>([
  ['an invalid image name', { pod: waiting('InvalidImageName') }, 'image_pull'],
  ['an image that is not there and must not be pulled', { pod: waiting('ErrImageNeverPull') }, 'image_pull'],
  ['an image that the registry does not have', { pod: waiting('ErrImagePull', 'manifest unknown') }, 'image_pull'],
  ['a registry that denies', { pod: waiting('ImagePullBackOff', 'pull access denied') }, 'image_pull'],
  [
    'a quota, said by the controller',
    {
      object: sandbox(
        {},
        { reason: 'ReconcilerError', message: 'pods "lap-1" is forbidden: exceeded quota: sandboxes' },
      ),
    },
    'quota_exceeded',
  ],
  [
    'a webhook, said by the controller',
    { object: sandbox({}, { reason: 'ReconcilerError', message: 'admission webhook "x" denied the request: no' }) },
    'setup_failed',
  ],
  [
    'Pod Security, said by the controller',
    {
      object: sandbox(
        {},
        { reason: 'ReconcilerError', message: 'pods "lap-1" is forbidden: violates PodSecurity "restricted:latest"' },
      ),
    },
    'setup_failed',
  ],
  [
    'a configuration that the controller refuses',
    { object: sandbox({}, { reason: 'InvalidConfiguration', message: 'no' }) },
    'setup_failed',
  ],
  ['a container out of memory', { pod: ended(137, { reason: 'OOMKilled' }) }, 'oom_killed'],
  [
    'a heap out of memory',
    { pod: ended(134, { reason: 'Error', message: 'FATAL ERROR: JavaScript heap out of memory' }) },
    'oom_killed',
  ],
  [
    'a supervisor that says why',
    { pod: ended(1, { message: 'log\n{"code":"clone_failed","message":"no such repository"}' }) },
    'clone_failed',
  ],
  ['a supervisor that says nothing', { pod: ended(1, { reason: 'Error' }) }, 'harness_exited'],
  ['a supervisor that says what is no code', { pod: ended(1, { message: '{"code":"nonsense"}' }) }, 'harness_exited'],
  ['a container that ended well too soon', { pod: ended(0, { reason: 'Completed' }) }, 'harness_exited'],
  [
    'the vault, though it is not the first container',
    {
      pod: pod({
        containerStatuses: [
          { name: 'harness', state: running },
          { name: 'vault', state: { terminated: { exitCode: 2 } } },
        ],
      }),
    },
    'vault_failed',
  ],
  [
    'an init container',
    {
      pod: pod({
        phase: 'Pending',
        initContainerStatuses: [{ name: 'prepare', state: { terminated: { exitCode: 1 } } }],
      }),
    },
    'harness_exited',
  ],
  [
    'a node that has no room after all',
    { pod: pod({ phase: 'Failed', reason: 'OutOfmemory', message: 'not enough' }) },
    'unschedulable',
  ],
  ['an eviction', { pod: pod({ phase: 'Failed', reason: 'Evicted', message: 'disk pressure' }) }, 'sandbox_lost'],
  [
    'an eviction that ended its container',
    {
      pod: pod({
        phase: 'Failed',
        reason: 'Evicted',
        containerStatuses: [{ name: 'harness', state: { terminated: { exitCode: 143 } } }],
      }),
    },
    'sandbox_lost',
  ],
  [
    'a drain',
    {
      pod: pod({
        conditions: [{ type: 'DisruptionTarget', status: 'True', message: 'drained' }],
        containerStatuses: [{ name: 'harness', state: running }],
      }),
    },
    'sandbox_lost',
  ],
  [
    'a pod that is being deleted',
    { pod: { ...healthy, metadata: { ...healthy.metadata, deletionTimestamp: '2026-11-21T10:00:00Z' } } },
    'sandbox_lost',
  ],
  ['an object that is gone', { object: undefined, pod: healthy }, 'sandbox_lost'],
  [
    'an object that is being deleted',
    { object: sandbox({ deletionTimestamp: '2026-11-21T10:00:00Z' }), pod: healthy },
    'sandbox_lost',
  ],
  [
    'a pod that is gone after it was ready',
    { object: sandbox({ annotations: { 'lap/pod-uid': 'pod-uid' } }) },
    'sandbox_lost',
  ],
  [
    'another pod in its place',
    { object: sandbox({ annotations: { 'lap/pod-uid': 'another' } }), pod: healthy },
    'sandbox_lost',
  ],
  ['two pods', { object: sandbox({}, { reason: 'MultiplePods', message: '2' }), pod: healthy }, 'sandbox_lost'],
  ['a node that is gone', { pod: healthy, nodesKnown: true }, 'sandbox_lost'],
  ['a node of which nothing is heard', { pod: healthy, nodesKnown: true, node: node('Unknown') }, 'sandbox_lost'],
])('it has failed: %s', (_why, what, code) => {
  expect(verdictOf(seen(what), graces)).toMatchObject({ is: 'failed', code })
})

test.each<[string, Pod, string, number]>([
  ['a registry that does not answer', waiting('ErrImagePull', 'i/o timeout'), 'image_pull', 3_000],
  ['a registry that did not answer twice', waiting('ImagePullBackOff', 'Back-off pulling image'), 'image_pull', 3_000],
  ['a runtime that cannot create it', waiting('CreateContainerError', 'name is reserved'), 'setup_failed', 3_000],
  [
    'a user that the image does not allow',
    waiting('CreateContainerConfigError', 'image will run as root'),
    'setup_failed',
    3_000,
  ],
  [
    'no room on any node',
    pod({
      phase: 'Pending',
      conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: '0/3 nodes' }],
    }),
    'unschedulable',
    3_000,
  ],
])('it may still come: %s', (_why, one, code, graceMs) => {
  expect(verdictOf(seen({ pod: one }), graces)).toMatchObject({ is: 'failing', code, graceMs })
})

test('a node of which nothing is known is no reason to call a sandbox lost', () => {
  expect(verdictOf(seen({ pod: healthy, nodesKnown: false }), graces).is).toBe('running')
  expect(verdictOf(seen({ pod: healthy, nodesKnown: true, node: node('True') }), graces).is).toBe('running')
})

test('a sandbox runs while the kubelet of its node says that it is not ready, and until the cluster evicts it', () => {
  const on = { nodesKnown: true, node: node('False') }
  expect(verdictOf(seen({ pod: healthy, ...on }), graces).is).toBe('running')
  const status = { ...healthy.status, conditions: [{ type: 'DisruptionTarget', status: 'True', message: 'tainted' }] }
  expect(verdictOf(seen({ pod: { ...healthy, status }, ...on }), graces)).toMatchObject({ code: 'sandbox_lost' })
})

test('memory tells more than the end of another container', () => {
  const both = pod({
    containerStatuses: [
      { name: 'harness', state: { terminated: { exitCode: 1 } } },
      { name: 'vault', state: { terminated: { exitCode: 137, reason: 'OOMKilled' } } },
    ],
  })
  expect(verdictOf(seen({ pod: both }), graces)).toMatchObject({ is: 'failed', code: 'oom_killed' })
})

test('a sandbox that was in use is lost, whatever ended it, unless memory did', () => {
  expect(asLoss('harness_exited')).toBe('sandbox_lost')
  expect(asLoss('oom_killed')).toBe('oom_killed')
})
