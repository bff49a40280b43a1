import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { loadConfig } from '../config/config.ts'
import type { SandboxSpec } from '../sandbox/driver.ts'
import { startScriptedCluster } from '../test/scripted-cluster.ts'
import type { ScriptedCluster } from '../test/scripted-cluster.ts'
import { createKubernetesDriver } from './driver.ts'
import type { KubernetesDriver } from './driver.ts'

const OBJECTS = '/apis/agents.x-k8s.io/v1beta1/namespaces/sandboxes/sandboxes'
const SERVICES = '/api/v1/namespaces/sandboxes/services'

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
  env: {},
  token: 'the token',
}

let cluster: ScriptedCluster
let driver: KubernetesDriver
beforeEach(async () => {
  cluster = await startScriptedCluster()
  cluster.answers.set(OBJECTS, { metadata: { name: spec.name, uid: 'uid-1' }, items: [] })
  const { k8s } = loadConfig({
    DATABASE_URL: 'postgresql://127.0.0.1:9/none',
    MASTER_KEY: 'a master key for tests',
    LITELLM_API_BASE: 'http://127.0.0.1:9',
    LITELLM_API_KEY: 'none',
    PREINSTALLED_GITHUB_REPO: 'https://example.com/repo.git',
    K8S_NAMESPACE: 'sandboxes',
  })
  const settings = { ...k8s, installation: 'this-one' }
  const access = { by: 'nodeport' as const, nodeHost: null }
  driver = createKubernetesDriver({ client: cluster.client, settings, access, mayReadNodes: false, unschedulableMs: 0 })
})
afterEach(async () => {
  await driver[Symbol.asyncDispose]()
  await cluster[Symbol.asyncDispose]()
})

test.each([
  [SERVICES, 'failed to allocate a nodePort: range is full', 'quota_exceeded'],
  [OBJECTS, 'failed calling webhook "sandboxes.example.com": connection refused', 'setup_failed'],
])('what %s answers as an internal error, %s, is a failure with a code', async (path, message, code) => {
  cluster.answers.set(path, { refuse: 500, message: `Internal error occurred: ${message}` })
  await expect(driver.create(spec)).rejects.toMatchObject({
    name: 'SandboxFailedError',
    failure: { code, message: expect.stringContaining(message) },
  })
})

/** Until it has read its roles an API server answers everything so. */
const MAY_NOT = { refuse: 403, message: 'User "lap" cannot create resource "sandboxes" in API group "agents.x-k8s.io"' }

test('what an API server refuses that refuses also to say whether it is ready is tried later, not a failure', async () => {
  cluster.answers.set(OBJECTS, MAY_NOT).set('/readyz', { refuse: 403, message: 'cannot get path "/readyz"' })
  await expect(driver.create(spec)).rejects.toMatchObject({ code: 'unavailable', cause: { status: 403 } })
  cluster.answers.set('/readyz', 'ok')
  await expect(driver.create(spec)).rejects.toMatchObject({ failure: { code: 'setup_failed' } })
})
