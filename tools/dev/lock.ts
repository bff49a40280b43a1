import { rename, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { takeLockFile } from './lock-file.ts'
import { type ProcessRecord, recordOf } from './process.ts'

/** Who runs in a data directory, and where it is reached. `<data>/running.json`, readable by its owner only. */
export type Running = ProcessRecord & {
  url: string
  metrics_url: string
  worker_metrics_url: string
  temporal_address: string
  temporal_ui_url: string | null
  database_url: string
  started_at: string
}

export type Lock = {
  /** Writes where everything is reached. */
  publish(running: Omit<Running, keyof ProcessRecord>): Promise<void>
  release(): Promise<void>
}

/** A data directory has one owner at a time. */
export class AlreadyRunning extends Error {
  override name = 'AlreadyRunning'
  constructor(dir: string, holder: Partial<Pick<Running, 'pid' | 'url'>>) {
    super(
      `LAP runs already in ${dir}: process ${holder.pid}${holder.url === undefined ? ', still starting' : `, ${holder.url}`}\n` +
        'End that one with Ctrl-C first, or start a second one with its own data: LAP_DATA_DIR=.lap-2 PORT=3001 npm start',
    )
  }
}

/**
 * Takes the data directory. A lock whose process is gone is taken over.
 * @throws AlreadyRunning
 */
export const takeLock = async (dir: string): Promise<Lock> => {
  const file = path.join(dir, 'running.json')
  const holder = await takeLockFile(file)
  if (holder !== null) throw new AlreadyRunning(dir, holder)
  return {
    publish: async (running) => {
      const draft = `${file}.new`
      const content = { ...recordOf(process.pid), ...running }
      await writeFile(draft, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600 })
      await rename(draft, file)
    },
    release: () => rm(file, { force: true }),
  }
}
