import type { Cluster } from '../../tools/cluster/control-plane.ts'
import { connectKube, type Kube, readAccess } from '../../tools/cluster/kube.ts'

/** The cluster of a test run: held by the process of the run, known to its workers by its kubeconfigs. */
const VARIABLE = 'TEST_CLUSTER'

// Set-up and teardown run in one process but load this module anew.
const store: typeof globalThis & { lapTestCluster?: Cluster } = globalThis

export const setTestCluster = (cluster: Cluster): void => {
  store.lapTestCluster = cluster
  process.env[VARIABLE] = JSON.stringify(cluster.kubeconfig)
}

export const testCluster = (): Cluster | undefined => store.lapTestCluster

/** Paths of kubeconfigs by user. @throws Error outside of `npm run test:cluster` */
export const sharedKubeconfig = (): Cluster['kubeconfig'] => {
  const text = process.env[VARIABLE]
  if (text === undefined) throw new Error('There is no cluster: run these tests with --config jest.cluster.config.js')
  return JSON.parse(text) as Cluster['kubeconfig']
}

export const connectShared = async (user: keyof Cluster['kubeconfig']): Promise<Kube> =>
  connectKube(await readAccess(sharedKubeconfig()[user]))
