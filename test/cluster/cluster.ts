import { mkdtemp } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import {
  type Cluster,
  type ClusterOptions,
  type OwnCluster,
  startOwnCluster,
} from '../../tools/cluster/control-plane.ts'
import { connectKube, readAccess } from '../../tools/cluster/kube.ts'
import { watchOver } from '../servers.ts'
import { ensureSandboxesCrd } from './sandboxes-crd.ts'

type Options = Pick<ClusterOptions, 'nodes' | 'times' | 'leaseS'>

export type PrivateCluster = Cluster & { own: OwnCluster }

/** One of our own that knows Sandboxes, and ends with this process however that one ends. */
export const startPrivateCluster = async (options: Options): Promise<PrivateCluster> => {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'lap-cluster-'))
  const onSpawn = await watchOver([], dir)
  const say = (text: string): void => console.info(text)
  return startOwnCluster({ ...options, dir: path.join(dir, 'state'), say, onSpawn, defineKinds: ensureSandboxesCrd })
}

/** The cluster that KUBECONFIG names; else one of our own. */
export const startCluster = async (options: Options): Promise<Cluster> => {
  const given = process.env['KUBECONFIG']
  if (!given) return startPrivateCluster(options)
  const kube = connectKube(await readAccess(given))
  await ensureSandboxesCrd(kube)
  await kube[Symbol.asyncDispose]()
  const stop = (): Promise<void> => Promise.resolve()
  return {
    kubeconfig: { admin: given, tester: given, controller: given },
    own: null,
    stop,
    [Symbol.asyncDispose]: stop,
  }
}
