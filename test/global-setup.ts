import { existsSync } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { onNpmEnded } from '../tools/dev/npm.ts'
import { startPostgres } from '../tools/dev/postgres.ts'
import { startTemporal } from '../tools/dev/temporal.ts'
import { type TestServers, setTestServers, watchOver } from './servers.ts'

const bundleWorkflows = async (dir: string): Promise<void> => {
  const workflowsPath = fileURLToPath(new URL('../workflows/index.ts', import.meta.url))
  if (!existsSync(workflowsPath)) return
  const { bundleWorkflowCode } = await import('@temporalio/worker')
  const quiet = { trace() {}, debug() {}, info() {}, warn() {}, error() {}, log() {} }
  const { code } = await bundleWorkflowCode({ workflowsPath, logger: quiet })
  const file = path.join(dir, 'workflows.js')
  await writeFile(file, code)
  process.env['TEST_WORKFLOW_BUNDLE'] = file
}

/** One Postgres and one Temporal server for a whole run; each test file has a database and a task queue of its own in them. */
const setup = async (): Promise<void> => {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'lap-test-'))
  const removeDir = (): Promise<void> => rm(dir, { recursive: true, force: true })
  await chmod(dir, 0o755)
  const onSpawn = await watchOver([], dir)
  onNpmEnded(() => process.kill(process.pid, 'SIGTERM'))
  const [postgres, temporal] = await Promise.allSettled([
    startPostgres({
      dir: path.join(dir, 'postgres'),
      database: 'lap',
      settings: { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off', max_connections: '300' },
      onSpawn,
    }),
    startTemporal({ uiPort: null, namespaces: ['lap'], onSpawn }),
    bundleWorkflows(dir),
  ])
  const running = [postgres, temporal].flatMap((part) => (part.status === 'fulfilled' ? [part.value] : []))
  const servers: TestServers = {
    stop: async () => {
      await Promise.all(running.map((part) => part.stop()))
      await removeDir()
    },
  }
  for (const part of [postgres, temporal]) {
    if (part.status === 'fulfilled') continue
    await servers.stop()
    throw part.reason
  }
  if (postgres.status !== 'fulfilled' || temporal.status !== 'fulfilled') return
  setTestServers(servers)
  process.env['TEST_DATABASE_URL'] = postgres.value.url
  process.env['TEST_TEMPORAL_ADDRESS'] = temporal.value.address
}

export default setup
