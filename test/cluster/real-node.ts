import { execFileSync } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { connect } from 'node:net'
import path from 'node:path'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { SandboxApi } from '../../kubernetes/objects.ts'
import type { Access } from '../../kubernetes/cluster.ts'
import { connectKube, type Kube, readAccess } from '../../tools/cluster/kube.ts'
import type { Cluster, OwnCluster } from '../../tools/cluster/control-plane.ts'
import { type RealNode, startNode } from '../../tools/cluster/node.ts'
import { freePort } from '../../tools/dev/ports.ts'
import { endProcess, type ProcessRecord, startProcess } from '../../tools/dev/process.ts'
import { harnessImage, type Image, pauseImage } from '../../tools/image/images.ts'
import { type Stack, startStack } from '../faults/stack.ts'
import { until } from '../until.ts'
import { type ScriptedModel, startScriptedModel } from '../scripted-model.ts'
import { watchOver } from '../servers.ts'
import { makeRepository } from '../supervisor.ts'
import { startPrivateCluster } from './cluster.ts'
import { makeNamespace } from './namespace.ts'
import { startSandboxController } from './sandbox-controller.ts'

/** A control plane with one real node, and what pods on it need of the outside: a model and a repository. */
export type RealCluster = AsyncDisposable & {
  cluster: Cluster & { own: OwnCluster }
  node: RealNode
  kube: Kube
  /** Names of the images that are on the node, by harness. */
  images: Record<string, string>
  model: ScriptedModel
  repository: string
}

export const GATEWAY_KEY = 'sk-real-gateway-4711'

/** Serves the repositories in a folder by git's own protocol. */
const startGitServer = async (
  folder: string,
  host: string,
  onSpawn: (record: ProcessRecord) => void,
): Promise<AsyncDisposable & { url: string }> => {
  const port = await freePort()
  const daemon = path.join(execFileSync('git', ['--exec-path'], { encoding: 'utf8' }).trim(), 'git-daemon')
  const args = [`--listen=${host}`, `--port=${port}`, `--base-path=${folder}`, '--export-all', '--reuseaddr']
  const { record } = await startProcess(daemon, args, { stdio: 'ignore', onSpawn })
  await until('the git server answers', 10_000, async () => {
    const socket = connect(port, host)
    await once(socket, 'connect')
    return socket.destroy()
  })
  return { url: `git://${host}:${port}`, [Symbol.asyncDispose]: () => endProcess(record, 'SIGTERM', 5_000) }
}

/** @param harnesses whose images pods can be made of */
export const startRealCluster = async (harnesses: string[]): Promise<RealCluster> => {
  const say = (text: string): void => console.info(text)
  const pause = await pauseImage(say)
  const images: [harness: string, image: Image][] = []
  for (const harness of harnesses) images.push([harness, await harnessImage(harness, say)])
  await using cleanup = new AsyncDisposableStack()
  const cluster = cleanup.use(await startPrivateCluster({ nodes: 0 }))
  const kube = cleanup.use(connectKube(await readAccess(cluster.kubeconfig.admin)))
  const folder = fileURLToPath(makeRepository({ 'README.md': 'from the repository\n' }))
  cleanup.defer(() => rm(folder, { recursive: true }))
  const onSpawn = await watchOver([], folder, cluster.own.dir)
  const node = cleanup.use(
    await startNode({ clusterDir: cluster.own.dir, pause, images: images.map(([, image]) => image), say, onSpawn }),
  )
  const model = cleanup.use(await startScriptedModel(GATEWAY_KEY, node.address))
  const git = cleanup.use(await startGitServer(path.dirname(folder), node.address, onSpawn))
  const kept = cleanup.move()
  return {
    cluster,
    node,
    kube,
    images: Object.fromEntries(images.map(([harness, { name }]) => [harness, name])),
    model,
    repository: `${git.url}/${path.basename(folder)}`,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

/** The platform with its sandboxes on the node. */
export type RealPlatform = AsyncDisposable & {
  stack: Stack
  namespace: string
  /** Names of what is left in the cluster, by kind. */
  objects(): Promise<Record<string, string[]>>
  /** Everything that the API server tells of sandboxes. */
  texts(): Promise<string>
}

type List = { items: { metadata: { name: string } }[] }

/** @param env settings that differ */
export const startRealPlatform = async (
  { cluster, kube, images, model, repository }: RealCluster,
  { api, access }: { api: SandboxApi; access: Access['by'] },
  env: Record<string, string> = {},
): Promise<RealPlatform> => {
  await using cleanup = new AsyncDisposableStack()
  const namespace = await makeNamespace(kube)
  if (api === 'sandbox')
    cleanup.use(await startSandboxController({ kubeconfig: cluster.kubeconfig.controller, namespace }))
  const stack = cleanup.use(
    await startStack({
      env: {
        SANDBOX_DRIVER: 'kubernetes',
        KUBECONFIG: cluster.kubeconfig.tester,
        K8S_NAMESPACE: namespace,
        K8S_SANDBOX_API: api,
        K8S_ACCESS: access,
        K8S_HARNESS_IMAGE_OPENCODE: images['opencode'] ?? '',
        K8S_HARNESS_IMAGE_CLAUDE_SDK: images['claude-agent-sdk'] ?? '',
        K8S_HARNESS_IMAGE_CLAUDE_CODE: images['claude-code'] ?? '',
        K8S_HARNESS_IMAGE_CODEX: images['codex'] ?? '',
        K8S_HARNESS_IMAGE_QWEN_CODE: images['qwen-code'] ?? '',
        K8S_IMAGE_PULL_POLICY: 'Never',
        PREINSTALLED_GITHUB_REPO: repository,
        LITELLM_API_BASE: model.url,
        LITELLM_API_KEY: GATEWAY_KEY,
        WARM_POOL_SIZE: '1',
        WARM_POOL_MAX_PROVISIONING: '1',
        ...env,
      },
    }),
  )
  const paths = [
    ...(api === 'sandbox' ? [`/apis/agents.x-k8s.io/v1beta1/namespaces/${namespace}/sandboxes`] : []),
    `/api/v1/namespaces/${namespace}/pods`,
    `/api/v1/namespaces/${namespace}/services`,
  ]
  const kept = cleanup.move()
  return {
    stack,
    namespace,
    objects: async () => {
      const lists = await Promise.all(paths.map((each) => kube.get<List>(each)))
      return Object.fromEntries(
        lists.map(({ items }, index) => [
          path.basename(paths[index] ?? ''),
          items.map(({ metadata }) => metadata.name),
        ]),
      )
    },
    texts: async () => (await Promise.all(paths.map((each) => kube.text(each)))).join('\n'),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}
