import { mkdtemp } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { type Cluster, startOwnCluster } from '../../tools/cluster/control-plane.ts'
import type { StageTimes } from '../../tools/cluster/stages.ts'
import { watchOver } from '../servers.ts'

/** The cluster that KUBECONFIG names; else one of our own, which ends with this process however that one ends. */
export const startCluster = async (options: { nodes: number; times?: StageTimes }): Promise<Cluster> => {
  const given = process.env['KUBECONFIG']
  if (given) {
    const stop = (): Promise<void> => Promise.resolve()
    return {
      kubeconfig: { admin: given, tester: given, controller: given },
      own: null,
      stop,
      [Symbol.asyncDispose]: stop,
    }
  }
  const dir = await mkdtemp(path.join(os.tmpdir(), 'lap-cluster-'))
  const onSpawn = await watchOver([], dir)
  const say = (text: string): void => console.info(text)
  return startOwnCluster({ ...options, dir: path.join(dir, 'state'), say, onSpawn })
}
