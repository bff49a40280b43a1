import { buildHelm, buildS3Server } from '../../tools/cluster/binaries.ts'
import setUpServers from '../global-setup.ts'
import { startCluster } from './cluster.ts'
import { setTestCluster } from './shared.ts'

/** Beside the servers of every run, one cluster for all files that do no harm to it; each file has namespaces of its own in it. */
const setup = async (): Promise<void> => {
  // Nothing to do where it is built; where it is not, minutes that no test has.
  await buildHelm((line) => console.info(line))
  await buildS3Server((line) => console.info(line))
  const [servers, cluster] = await Promise.allSettled([setUpServers(), startCluster({ nodes: 10 })])
  if (cluster.status === 'fulfilled') setTestCluster(cluster.value)
  for (const part of [servers, cluster]) if (part.status === 'rejected') throw part.reason
}

export default setup
