import { randomInt } from 'node:crypto'
import { cp, writeFile } from 'node:fs/promises'
import path from 'node:path'
import type { Pod } from '../../kubernetes/objects.ts'
import { connectKube, type Kube, readAccess } from '../../tools/cluster/kube.ts'
import type { Cluster, OwnCluster } from '../../tools/cluster/control-plane.ts'
import { REALISTIC } from '../../tools/cluster/stages.ts'
import { type Stack, startStack } from '../faults/stack.ts'
import { type BadServer, startBadServer } from './bad-server.ts'
import { startPrivateCluster } from './cluster.ts'
import { type SandboxController, startSandboxController } from './sandbox-controller.ts'
import { startSupervisors, type Supervisors } from './supervisors.ts'

/** The whole platform with sandboxes in a cluster of its own, whose nodes are fake and whose pods take as long as real ones: all of it may be killed. */
export type Platform = AsyncDisposable & {
  stack: Stack
  cluster: Cluster & { own: OwnCluster }
  /** The platform's way to the API server. */
  server: BadServer
  supervisors: Supervisors
  kube: Kube
  /** Ends the controller of Sandboxes as a crash would, and starts another one. Nothing where sandboxes are plain Pods. */
  replaceController(): Promise<void>
  /** How many objects of sandboxes there are, by kind. */
  left(): Promise<Record<string, number>>
  /** How far they are, and what the stand-ins know: for whoever asks why nothing moves. */
  standing(): Promise<object>
}

type Api = 'sandbox' | 'pod'
type List = { items: { metadata: { name: string } }[] }

export const NAMESPACE = 'sandboxes'
const POD_PATH = `/api/v1/namespaces/${NAMESPACE}/pods`

/** As the logs of the platform: with `FAULTS_LOG_DIR` set, those of the cluster stay there. */
const keepLogs = async (dir: string): Promise<void> => {
  const kept = process.env['FAULTS_LOG_DIR']
  if (kept !== undefined) await cp(path.join(dir, 'logs'), path.join(kept, 'cluster'), { recursive: true })
}

/** What was in the cluster at the end, and what its stand-ins knew of it. */
const keepObjects = async (kube: Kube, paths: string[], known: () => object): Promise<void> => {
  const kept = process.env['FAULTS_LOG_DIR']
  if (kept === undefined) return
  const all = await Promise.all(paths.map(async (path) => [path, await kube.get(path).catch(String)] as const))
  const text = JSON.stringify({ ...known(), objects: Object.fromEntries(all) }, null, 1)
  await writeFile(path.join(kept, 'objects.json'), text)
}

export const startPlatform = async (api: Api, env: Record<string, string>): Promise<Platform> => {
  await using cleanup = new AsyncDisposableStack()
  const cluster = cleanup.use(await startPrivateCluster({ nodes: 20, times: REALISTIC }))
  cleanup.defer(() => keepLogs(cluster.own.dir))
  const kube = cleanup.use(connectKube(await readAccess(cluster.kubeconfig.admin)))
  await kube.create('/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name: NAMESPACE } })
  const nodeHost = `127.${randomInt(128, 250)}.${randomInt(250)}.1`
  const supervisors = cleanup.use(
    await startSupervisors({ kubeconfig: cluster.kubeconfig.controller, namespace: NAMESPACE, nodeHost }),
  )
  const newController = (): Promise<SandboxController> =>
    startSandboxController({ kubeconfig: cluster.kubeconfig.controller, namespace: NAMESPACE })
  let controller = api === 'sandbox' ? await newController() : null
  cleanup.defer(async () => controller?.[Symbol.asyncDispose]())
  const server = cleanup.use(await startBadServer(cluster))
  const stack = cleanup.use(
    await startStack({
      apis: 2,
      workers: 2,
      env: {
        SANDBOX_DRIVER: 'kubernetes',
        KUBECONFIG: await cluster.own.kubeconfigVia('tester', server.port),
        K8S_NAMESPACE: NAMESPACE,
        K8S_SANDBOX_API: api,
        K8S_ACCESS: 'nodeport',
        K8S_NODE_HOST: nodeHost,
        K8S_HARNESS_IMAGE: 'registry.invalid/harness:1',
        K8S_UNSCHEDULABLE_GRACE_SECONDS: '20',
        ...env,
      },
    }),
  )
  const kinds: Record<string, string> = {
    ...(api === 'sandbox' ? { sandboxes: `/apis/agents.x-k8s.io/v1beta1/namespaces/${NAMESPACE}/sandboxes` } : {}),
    pods: POD_PATH,
    services: `/api/v1/namespaces/${NAMESPACE}/services`,
  }
  const known = (): object => ({ controller: controller?.troubles(), supervisors: supervisors.count() })
  const standing = async (): Promise<object> => {
    const names = (await kube.get<List>(kinds['sandboxes'] ?? POD_PATH)).items.map(({ metadata }) => metadata.name)
    const pods = (await kube.get<{ items: Pod[] }>(POD_PATH)).items
    const withPod = new Set(pods.map(({ metadata }) => metadata.name))
    return {
      ...known(),
      sandboxes: names.length,
      withoutPod: names.filter((name) => !withPod.has(name)),
      unscheduled: pods.filter(({ spec }) => spec?.nodeName === undefined).map(({ metadata }) => metadata.name),
      waiting: pods.filter(({ status }) => status?.phase !== 'Running').length,
    }
  }
  const more = ['/api/v1/nodes', `/api/v1/namespaces/${NAMESPACE}/events`]
  cleanup.defer(() => keepObjects(kube, [...Object.values(kinds), ...more], known))
  const kept = cleanup.move()
  return {
    stack,
    cluster,
    server,
    supervisors,
    kube,
    async replaceController() {
      if (controller === null) return
      controller.kill()
      controller = await newController()
    },
    left: async () =>
      Object.fromEntries(
        await Promise.all(
          Object.entries(kinds).map(async ([kind, path]) => [kind, (await kube.get<List>(path)).items.length] as const),
        ),
      ),
    standing,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}
