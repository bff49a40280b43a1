import { createLocalDriver } from '../../local/driver.ts'

/** Ends and deletes every local sandbox of the folder, whoever made it: sandboxes outlive API and worker, but not what started them. */
export const removeSandboxes = async (dir: string): Promise<void> => {
  const driver = createLocalDriver({
    dir,
    host: '127.0.0.1',
    listen: '127.0.0.1',
    searchPath: '',
    harnessDir: () => undefined,
  })
  await driver.removeAll()
}
