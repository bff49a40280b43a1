import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { ensureSandboxesCrd } from '../../test/cluster/sandboxes-crd.ts'
import { watchOver } from '../../test/servers.ts'
import { startOwnCluster } from '../../tools/cluster/control-plane.ts'
import { connectKube, readAccess } from '../../tools/cluster/kube.ts'
import { FAST } from '../../tools/cluster/stages.ts'
import { type Servers, startServers } from '../platform.ts'

const NAMESPACE = 'sandboxes'

/** A process of `supervisors.ts`, which ends with this one, and not by Ctrl-C: what is cleaned up needs it. */
const standBehind = async (kubeconfig: string): Promise<Disposable> => {
  const file = path.join(import.meta.dirname, 'supervisors.ts')
  const child = fork(file, [`--kubeconfig=${kubeconfig}`, `--namespace=${NAMESPACE}`], { detached: true })
  const onExit = (): never => {
    throw new Error('The supervisors of the fake pods ended')
  }
  child.once('exit', onExit)
  await once(child, 'message')
  return {
    [Symbol.dispose]: () => {
      child.off('exit', onExit)
      child.disconnect()
    },
  }
}

/**
 * The platform with a real control plane and fake nodes: objects, watches, claims and binds are real, a pod runs as soon as it is scheduled, and its supervisor answers
 * at once. What is measured is what the platform and Kubernetes add.
 */
export const startClusterServers = async (api: 'sandbox' | 'pod'): Promise<Servers> => {
  await using cleanup = new AsyncDisposableStack()
  const dir = await mkdtemp(path.join(os.tmpdir(), 'lap-bench-cluster-'))
  cleanup.defer(() => rm(dir, { recursive: true, force: true }))
  const cluster = cleanup.use(
    await startOwnCluster({
      dir: path.join(dir, 'state'),
      nodes: 20,
      times: FAST,
      say: console.log,
      onSpawn: await watchOver([], dir),
      defineKinds: ensureSandboxesCrd,
    }),
  )
  await using kube = connectKube(await readAccess(cluster.kubeconfig.admin))
  await kube.create('/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name: NAMESPACE } })
  cleanup.use(await standBehind(cluster.kubeconfig.controller))
  const servers = cleanup.use(await startServers())
  const env = {
    SANDBOX_DRIVER: 'kubernetes',
    KUBECONFIG: cluster.kubeconfig.tester,
    K8S_NAMESPACE: NAMESPACE,
    K8S_SANDBOX_API: api,
    K8S_ACCESS: 'nodeport',
    K8S_NODE_HOST: '127.0.0.1',
    K8S_HARNESS_IMAGE: 'registry.invalid/harness:1',
    K8S_UNSCHEDULABLE_GRACE_SECONDS: '30',
    WARM_POOL_MAX_PROVISIONING: '20',
  }
  const kept = cleanup.move()
  return {
    ...servers,
    start: (settings) => servers.start({ ...env, ...settings }),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}
