import { startSandboxController } from '../../test/cluster/sandbox-controller.ts'
import { startRealCluster } from '../../test/cluster/real-node.ts'
import { makeNamespace } from '../../test/cluster/namespace.ts'
import { canRunNode } from '../../tools/cluster/node.ts'
import { type Servers, startServers } from '../platform.ts'

/**
 * The platform with a real control plane and one real node, which is this machine: the real image and the real harness in a container, reached at the address of its pod.
 * @throws Error where a node cannot run, with the reason
 */
export const startRealNodeServers = async (api: 'sandbox' | 'pod'): Promise<Servers> => {
  const able = await canRunNode()
  if (!able.ok) throw new Error(`A real node cannot run here: ${able.reason}`)
  await using cleanup = new AsyncDisposableStack()
  const { cluster, kube, images, node, repository } = cleanup.use(await startRealCluster(['opencode']))
  const namespace = await makeNamespace(kube)
  if (api === 'sandbox')
    cleanup.use(await startSandboxController({ kubeconfig: cluster.kubeconfig.controller, namespace }))
  const servers = cleanup.use(await startServers({ modelHost: node.address }))
  const env = {
    SANDBOX_DRIVER: 'kubernetes',
    KUBECONFIG: cluster.kubeconfig.tester,
    K8S_NAMESPACE: namespace,
    K8S_SANDBOX_API: api,
    K8S_ACCESS: 'pod-ip',
    K8S_HARNESS_IMAGE: images['opencode'] ?? '',
    K8S_IMAGE_PULL_POLICY: 'Never',
    PREINSTALLED_GITHUB_REPO: repository,
    WARM_POOL_MAX_PROVISIONING: '2',
  }
  const kept = cleanup.move()
  return {
    ...servers,
    start: (settings) => servers.start({ ...env, ...settings }),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}
