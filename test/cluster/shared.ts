import type { Cluster } from '../../tools/cluster/control-plane.ts'
import type { Placement } from './cluster.ts'
import { connectKube, type Kube, readAccess } from '../../tools/cluster/kube.ts'

/** The cluster of a test run: held by the process of the run, known to its workers by its kubeconfigs. */
const VARIABLE = 'TEST_CLUSTER'

// Set-up and teardown run in one process but load this module anew.
type Shared = Cluster & { placement: Placement }

const store: typeof globalThis & { lapTestCluster?: Shared } = globalThis

export const setTestCluster = (cluster: Shared): void => {
  store.lapTestCluster = cluster
  process.env[VARIABLE] = JSON.stringify({ kubeconfig: cluster.kubeconfig, placement: cluster.placement })
}

export const testCluster = (): Cluster | undefined => store.lapTestCluster

type Told = Pick<Shared, 'kubeconfig' | 'placement'>

/** @throws Error outside of `npm run test:cluster` */
const told = (): Told => {
  const text = process.env[VARIABLE]
  if (text === undefined) throw new Error('There is no cluster: run these tests with --config jest.cluster.config.js')
  return JSON.parse(text) as Told
}

/** Paths of kubeconfigs by user. */
export const sharedKubeconfig = (): Cluster['kubeconfig'] => told().kubeconfig

/** What pods need to come to its fake nodes. */
export const sharedPlacement = (): Placement => told().placement

export const connectShared = async (user: keyof Cluster['kubeconfig']): Promise<Kube> =>
  connectKube(await readAccess(sharedKubeconfig()[user]))
