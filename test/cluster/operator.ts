import { jest } from '@jest/globals'
import { createKubeClient } from '../../kubernetes/client.ts'
import type { KubeClient } from '../../kubernetes/client.ts'
import { createKubernetesInspector } from '../../kubernetes/inspector.ts'
import { inspectorRightsFor } from '../../kubernetes/preflight.ts'
import type { Right } from '../../kubernetes/preflight.ts'
import type { Cluster, OwnCluster } from '../../tools/cluster/control-plane.ts'
import { connectKube, type Kube, readAccess } from '../../tools/cluster/kube.ts'
import { startTestApi, type TestApi } from '../api.ts'
import { fixedCredentials } from '../scripted-cluster.ts'
import { testTemporalAddress } from '../temporal.ts'
import { startPrivateCluster } from './cluster.ts'
import { makeNamespace } from './namespace.ts'
import { startSandboxController } from './sandbox-controller.ts'
import { startSupervisors, type Supervisors } from './supervisors.ts'

/** API and worker with sandboxes in a cluster of its own, as an operator meets it: all of it may be broken. */
export type Operated = AsyncDisposable & {
  api: TestApi
  cluster: Cluster & { own: OwnCluster }
  kube: Kube
  namespace: string
  supervisors: Supervisors
  /** Talks to the API server as a service account with these rights and no others. */
  clientWith(rights: Right[], account: string): Promise<KubeClient>
}

const RBAC = '/apis/rbac.authorization.k8s.io/v1'
const RIGHTS = inspectorRightsFor('sandbox', 'nodeport')

const rulesOf = (rights: Right[]): object[] =>
  rights.map(({ group, resource, subresource, verb }) => ({
    apiGroups: [group],
    resources: [subresource === undefined ? resource : `${resource}/${subresource}`],
    verbs: [verb],
  }))

/** A service account with these rights. @returns its token */
const account = async (kube: Kube, namespace: string, who: { name: string; rights: Right[] }): Promise<string> => {
  const { name, rights } = who
  const subjects = [{ kind: 'ServiceAccount', name, namespace }]
  const accounts = `/api/v1/namespaces/${namespace}/serviceaccounts`
  await kube.create(accounts, { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name } })
  for (const everywhere of [false, true]) {
    const kind = everywhere ? 'ClusterRole' : 'Role'
    const path = everywhere ? RBAC : `${RBAC}/namespaces/${namespace}`
    const base = { apiVersion: 'rbac.authorization.k8s.io/v1', metadata: { name } }
    const rules = rulesOf(rights.filter((right) => (right.everywhere === true) === everywhere))
    const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind, name }
    await kube.create(`${path}/${kind.toLowerCase()}s`, { ...base, kind, rules })
    await kube.create(`${path}/${kind.toLowerCase()}bindings`, { ...base, kind: `${kind}Binding`, roleRef, subjects })
  }
  const request = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { expirationSeconds: 3_600 } }
  const { status } = await kube.create<{ status: { token: string } }>(`${accounts}/${name}/token`, request)
  return status.token
}

/**
 * The API in this process, with exactly the rights that its inspector names; a worker beside it.
 * @param env settings of both
 */
export const operate = async (env: Record<string, string>): Promise<Operated> => {
  await using cleanup = new AsyncDisposableStack()
  const cluster = cleanup.use(await startPrivateCluster({ nodes: 3, leaseS: 4 }))
  const access = await readAccess(cluster.kubeconfig.admin)
  const kube = cleanup.use(connectKube(access))
  const namespace = await makeNamespace(kube)
  const { controller, tester } = cluster.kubeconfig
  // Turns that never end.
  const supervisors = cleanup.use(
    await startSupervisors({ kubeconfig: controller, namespace, pace: { turnMs: 2 ** 30 } }),
  )
  cleanup.use(await startSandboxController({ kubeconfig: controller, namespace }))
  const clients = cleanup.use(new AsyncDisposableStack())
  const clientWith = async (rights: Right[], name: string): Promise<KubeClient> => {
    const token = await account(kube, namespace, { name, rights })
    const current = { headers: { authorization: `Bearer ${token}` }, tls: { ca: access.ca ?? '' } }
    return clients.use(createKubeClient(fixedCredentials(access.server, current)))
  }
  const client = await clientWith(RIGHTS, 'api')
  const api = cleanup.use(
    await startTestApi({
      worker: true,
      inspector: createKubernetesInspector({ client, api: 'sandbox', namespace, access: 'nodeport' }),
      env: {
        TEMPORAL_ADDRESS: testTemporalAddress(),
        PREINSTALLED_GITHUB_REPO: 'https://git.invalid/repo',
        SANDBOX_DRIVER: 'kubernetes',
        KUBECONFIG: tester,
        K8S_NAMESPACE: namespace,
        K8S_ACCESS: 'nodeport',
        K8S_NODE_HOST: '127.0.0.1',
        K8S_SUPERVISOR_PORT: String(supervisors.port),
        ...env,
      },
    }),
  )
  const kept = cleanup.move()
  return {
    api,
    cluster,
    kube,
    namespace,
    supervisors,
    clientWith,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

/** As it is so much later: only the API's clock is set. */
export const later = async <T>(ms: number, work: () => Promise<T>): Promise<T> => {
  const timers = [
    'setTimeout',
    'setInterval',
    'setImmediate',
    'clearTimeout',
    'clearInterval',
    'clearImmediate',
  ] as const
  const others = ['hrtime', 'nextTick', 'performance', 'queueMicrotask'] as const
  jest.useFakeTimers({ now: Date.now() + ms, doNotFake: [...timers, ...others] })
  try {
    return await work()
  } finally {
    jest.useRealTimers()
  }
}
