import { testServers } from './servers.ts'

const teardown = async (): Promise<void> => {
  await testServers()?.stop()
}

export default teardown
