import tearDownServers from '../global-teardown.ts'
import { testCluster } from './shared.ts'

const teardown = async (): Promise<void> => {
  await Promise.all([testCluster()?.stop(), tearDownServers()])
}

export default teardown
