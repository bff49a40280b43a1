import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { SILENCE, startScriptedCluster } from '../test/scripted-cluster.ts'
import type { ScriptedCluster } from '../test/scripted-cluster.ts'

const path = '/api/v1/namespaces/sandboxes/pods'
const WEBHOOK_DOWN = 'Internal error occurred: failed calling webhook "pods.example.com": connection refused'

let cluster: ScriptedCluster
beforeEach(async () => {
  cluster = await startScriptedCluster()
})
afterEach(async () => {
  await cluster[Symbol.asyncDispose]()
})

const post = (timeoutMs = 10_000): Promise<object> => cluster.client.json({ method: 'POST', path, body: {}, timeoutMs })

test('an answer that is an error is never told as none, not even when the last try is cut short', async () => {
  const refusal = { refuse: 500, message: 'etcdserver: request timed out' }
  let tries = 0
  cluster.answers.set(path, () => (tries++ < 2 ? refusal : SILENCE))
  await expect(post(2_000)).rejects.toMatchObject({
    code: 'unavailable',
    message: `the Kubernetes API server answered POST ${path} with 500: etcdserver: request timed out`,
  })
})

test('no answer is told as none', async () => {
  cluster.answers.set(path, SILENCE)
  const error = { code: 'unavailable', message: expect.stringContaining(`did not answer POST ${path}`) }
  await expect(post(300)).rejects.toMatchObject(error)
})

test('what another try cannot change is asked for once, though it is said as an internal error', async () => {
  const message = 'Internal error occurred: failed to allocate a nodePort: range is full'
  cluster.answers.set(path, { refuse: 500, message })
  await expect(post()).rejects.toMatchObject({ name: 'KubeError', status: 500, message })
  expect(cluster.asked).toHaveLength(1)
})

test('a write that collides with another one is sent again, one of what is there already is not', async () => {
  const quota = 'Operation cannot be fulfilled on resourcequotas "all"'
  const collided = `${quota}: the object has been modified; please apply your changes to the latest version and try again`
  let left = 2
  cluster.answers.set(path, () => (left-- > 0 ? { refuse: 409, message: collided } : { metadata: {} }))
  await expect(post()).resolves.toEqual({ metadata: {} })
  expect(cluster.asked).toHaveLength(3)
  cluster.answers.set(path, { refuse: 409, message: 'pods "one" already exists' })
  await expect(post()).rejects.toMatchObject({ name: 'KubeError', status: 409 })
  expect(cluster.asked).toHaveLength(4)
})

test('a webhook that is down for a moment is waited for', async () => {
  let left = 2
  cluster.answers.set(path, () => (left-- > 0 ? { refuse: 500, message: WEBHOOK_DOWN } : { metadata: {} }))
  await expect(post()).resolves.toEqual({ metadata: {} })
})

test('a webhook that is down for longer is a refusal, before the call is over', async () => {
  cluster.answers.set(path, { refuse: 500, message: WEBHOOK_DOWN })
  await expect(post()).rejects.toMatchObject({ name: 'KubeError', message: WEBHOOK_DOWN })
  expect(cluster.asked.length).toBeGreaterThan(2)
})

test('a call that gives one try more time waits that long for the answer', async () => {
  cluster.answers.set(path, () => sleep(17_000, { metadata: {} }))
  const call = { method: 'POST' as const, path, body: {}, timeoutMs: 25_000, tryTimeoutMs: 25_000 }
  await expect(cluster.client.json(call)).resolves.toEqual({ metadata: {} })
  expect(cluster.asked).toHaveLength(1)
})
