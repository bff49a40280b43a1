import { mkdtemp } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import {
  type Cluster,
  type ClusterOptions,
  type OwnCluster,
  startOwnCluster,
} from '../../tools/cluster/control-plane.ts'
import { type FakeNodes, startFakeNodes } from '../../tools/cluster/fake-nodes.ts'
import { connectKube, readAccess } from '../../tools/cluster/kube.ts'
import { watchOver } from '../servers.ts'
import { awaitCollection, ensureSandboxesCrd } from './sandboxes-crd.ts'

type Options = Pick<ClusterOptions, 'nodes' | 'times' | 'leaseS'>

export type PrivateCluster = Cluster & { own: OwnCluster }

/** One of our own that knows Sandboxes, and ends with this process however that one ends. */
export const startPrivateCluster = async (options: Options): Promise<PrivateCluster> => {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'lap-cluster-'))
  const onSpawn = await watchOver([], dir)
  const say = (text: string): void => console.info(text)
  return startOwnCluster({ ...options, dir: path.join(dir, 'state'), say, onSpawn, defineKinds: ensureSandboxesCrd })
}

/** What pods have to ask for to come to the fake nodes; nothing where there are no others. */
export type Placement = Pick<FakeNodes, 'nodeSelector' | 'tolerations'>

/** The cluster that KUBECONFIG names, with fake nodes beside its own; else one of our own. */
export const startCluster = async (options: Options): Promise<Cluster & { placement: Placement }> => {
  const given = process.env['KUBECONFIG']
  if (!given) return { ...(await startPrivateCluster(options)), placement: { nodeSelector: {}, tolerations: [] } }
  const kube = connectKube(await readAccess(given))
  if (await ensureSandboxesCrd(kube)) await awaitCollection(kube)
  await kube[Symbol.asyncDispose]()
  const dir = await mkdtemp(path.join(os.tmpdir(), 'lap-fake-nodes-'))
  const onSpawn = await watchOver([], dir)
  const say = (text: string): void => console.info(text)
  const fakes = await startFakeNodes({ kubeconfig: given, dir, nodes: options.nodes, say, onSpawn })
  const { nodeSelector, tolerations, stop } = fakes
  return {
    kubeconfig: { admin: given, tester: given, controller: given },
    own: null,
    placement: { nodeSelector, tolerations },
    stop,
    [Symbol.asyncDispose]: stop,
  }
}
