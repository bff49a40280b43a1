import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { createKubeClient } from '../../kubernetes/client.ts'
import { loadCredentials } from '../../kubernetes/credentials.ts'
import { pathOf } from '../../kubernetes/objects.ts'
import { type Preflight, preflight, type Right, rightsFor } from '../../kubernetes/preflight.ts'
import { createAuthority } from '../../tools/cluster/certificates.ts'
import { freePort } from '../../tools/dev/ports.ts'
import { type Access, kubeconfigText, readAccess } from '../../tools/cluster/kube.ts'
import { createAccount } from './accounts.ts'
import { eventually } from './namespace.ts'
import { sharedKubeconfig } from './shared.ts'
import { becomesReady, createWorld, type Sent, type World } from './world.ts'

let dir: string
let access: Access

beforeAll(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'lap-rights-'))
  access = await readAccess(sharedKubeconfig().tester)
})
afterAll(() => rm(dir, { recursive: true, force: true }))

const kubeconfigOf = async (name: string, text: string): Promise<string> => {
  const file = path.join(dir, name)
  await writeFile(file, text, { mode: 0o600 })
  return file
}

const look = async (kubeconfig: string, namespace: string, api: 'sandbox' | 'pod' = 'sandbox'): Promise<Preflight> => {
  await using client = createKubeClient(loadCredentials(kubeconfig))
  return preflight({ client, api, namespace, access: 'nodeport', timeoutMs: 2_000 })
}

const VERBS: Record<string, string> = { POST: 'create', PATCH: 'patch', DELETE: 'delete' }

/** The right that a request needs, in the words of RBAC. */
const rightOf = ({ method, path: called, watch }: Sent): string => {
  const [, group = '', rest = ''] =
    /^\/(?:api\/v1|apis\/([^/]+)\/[^/]+)\/(?:namespaces\/[^/]+\/)?(.+)$/.exec(called) ?? []
  const [resource = '', name, subresource] = rest.split('/')
  const read = watch ? 'watch' : name === undefined ? 'list' : 'get'
  return [VERBS[method] ?? read, group, subresource === undefined ? resource : `${resource}/${subresource}`].join(' ')
}
const nameOf = ({ group, resource, subresource, verb }: Right): string =>
  [verb, group, subresource === undefined ? resource : `${resource}/${subresource}`].join(' ')

describe.each([
  ['sandbox', 'nodeport'],
  ['sandbox', 'pod-ip'],
  ['pod', 'nodeport'],
  ['pod', 'pod-ip'],
] as const)('with K8S_SANDBOX_API=%s and K8S_ACCESS=%s', (api, by) => {
  let world: World

  beforeAll(async () => {
    const how = by === 'pod-ip' ? { by } : { by, nodeHost: null }
    world = await createWorld({ kubeconfig: sharedKubeconfig(), api, access: how })
  })
  afterAll(async () => {
    await world?.[Symbol.asyncDispose]()
  })

  test('the driver needs every right that it asks for, and no other', async () => {
    const { kube, namespace } = world
    const rights = rightsFor(api, by)
    const kubeconfig = await createAccount({ kube, access, namespace, rights, dir })
    await expect(look(kubeconfig, namespace, api)).resolves.toMatchObject(
      by === 'nodeport' ? { problems: [], warnings: [], mayReadNodes: true } : { mayReadNodes: true },
    )
    const sent: Sent[] = []
    const driver = world.another({ kubeconfig, sent })
    const lost: string[] = []
    const stop = new AbortController()
    driver.watchLost((name) => lost.push(name), stop.signal)
    const spec = world.spec({ denyOut: ['192.0.2.1'] })
    await driver.create(spec)
    await driver.create(spec)
    await becomesReady(driver, spec.name)
    await driver.markClaimed(spec.name, 'session-1')
    await driver.list()
    await driver.inspect(spec.name)
    await driver.logs(spec.name, { tailLines: 10 })
    await world.kube.remove(world.path('pod', spec.name))
    await eventually(
      async () => lost,
      (names) => names.includes(spec.name),
    )
    await driver.lossOf(spec.name)
    await driver.remove(spec.name)
    const removed = world.spec()
    await driver.create(removed)
    await becomesReady(driver, removed.name)
    await driver.remove(removed.name)
    if (api === 'sandbox') {
      // A pod whose owner is gone.
      const orphan = world.spec()
      await driver.create(orphan)
      await becomesReady(driver, orphan.name)
      await world.kube.remove(world.path('object', orphan.name), { propagationPolicy: 'Orphan' })
      await eventually(async () => (await world.find('object', orphan.name)) === null, Boolean)
      await driver.remove(orphan.name)
    }
    // What has no owner that would take it along.
    const { name } = world.spec()
    const labels = { 'app.kubernetes.io/managed-by': 'lap', 'lap/instance': 'lap' }
    await kube.create(pathOf('networkpolicies', namespace), { metadata: { name, labels }, spec: { podSelector: {} } })
    if (by === 'nodeport')
      await kube.create(pathOf('services', namespace), { metadata: { name, labels }, spec: { ports: [{ port: 80 }] } })
    await driver.remove(name)
    stop.abort()
    const used = new Set(sent.filter(({ path: called }) => called !== '/readyz').map(rightOf))
    expect([...used].toSorted()).toEqual(rights.map(nameOf).toSorted())
  })
})

describe('what is missing is said, with its remedy', () => {
  let world: World

  beforeAll(async () => {
    world = await createWorld({ kubeconfig: sharedKubeconfig(), api: 'sandbox' })
  })
  afterAll(async () => {
    await world?.[Symbol.asyncDispose]()
  })

  test('rights, each by its name', async () => {
    const { kube, namespace } = world
    const rights = rightsFor('sandbox', 'nodeport').filter(
      ({ verb, resource }) => !(verb === 'patch' && resource === 'sandboxes') && resource !== 'nodes',
    )
    const found = await look(await createAccount({ kube, access, namespace, rights, dir }), namespace)
    expect(found.mayReadNodes).toBe(false)
    expect(found.problems).toMatchObject([
      { what: expect.stringContaining('patch sandboxes.agents.x-k8s.io'), remedy: expect.stringContaining('Role') },
    ])
    expect(found.problems[0]?.what).not.toContain('nodes')
    expect(found.warnings).toMatchObject([{ what: expect.stringContaining('watch nodes') }])
  })

  test('the server', async () => {
    const server = `https://127.0.0.1:${await freePort()}`
    const text = kubeconfigText({ server, ca: access.ca ?? '', token: 'any' })
    const startedAt = Date.now()
    const found = await look(await kubeconfigOf('nobody', text), world.namespace)
    expect(Date.now() - startedAt).toBeLessThan(5_000)
    expect(found).toMatchObject({
      unreachable: true,
      problems: [{ what: expect.stringContaining('reach'), remedy: expect.stringContaining('KUBECONFIG') }],
    })
  })

  test('a login that is valid', async () => {
    const { server, ca = '' } = access
    const found = await look(
      await kubeconfigOf('stranger', kubeconfigText({ server, ca, token: 'unknown' })),
      world.namespace,
    )
    expect(found.problems).toMatchObject([
      { what: expect.stringContaining('credentials'), remedy: expect.stringContaining('token') },
    ])
  })

  test('a certificate that is known', async () => {
    const { server } = access
    const ca = createAuthority('somebody else').certificate
    const found = await look(
      await kubeconfigOf('other-ca', kubeconfigText({ server, ca, token: 'any' })),
      world.namespace,
    )
    expect(found).toMatchObject({ unreachable: true, problems: [{ remedy: expect.stringContaining('kubeconfig') }] })
  })
})
