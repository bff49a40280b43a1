import { link, readFile, rename, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { isRunning, type ProcessRecord, recordOf } from './process.ts'

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
  constructor(dir: string, holder: Partial<Running>) {
    super(
      `LAP runs already in ${dir}: process ${holder.pid}${holder.url === undefined ? ', still starting' : `, ${holder.url}`}\n` +
        'End that one with Ctrl-C first, or start a second one with its own data: LAP_DATA_DIR=.lap-2 PORT=3001 npm start',
    )
  }
}

const readHolder = async (file: string): Promise<Partial<Running> | null> => {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as Partial<Running>
  } catch (error) {
    if (Error.isError(error) && 'code' in error && error.code === 'ENOENT') return null
    // Half a file is left by a machine that went down while writing.
    return {}
  }
}

const holds = (holder: Partial<Running>): boolean =>
  typeof holder.pid === 'number' &&
  typeof holder.started === 'string' &&
  isRunning({ pid: holder.pid, started: holder.started })

/**
 * Takes the data directory. A lock whose process is gone is taken over; start times are compared, so a reused process id does not hold it.
 * @throws AlreadyRunning
 */
export const takeLock = async (dir: string): Promise<Lock> => {
  const file = path.join(dir, 'running.json')
  const own = recordOf(process.pid)
  if (own === null) throw new Error('This process does not find itself in /proc')
  const draft = `${file}.${own.pid}`
  const write = (content: object): Promise<void> =>
    writeFile(draft, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600 })
  await write(own)
  for (;;) {
    try {
      // Unlike a rename, a link fails when the file exists: of two that start together one gets it.
      await link(draft, file)
      break
    } catch (error) {
      if (!(Error.isError(error) && 'code' in error && error.code === 'EEXIST')) throw error
      const holder = await readHolder(file)
      if (holder === null) continue
      if (holds(holder)) {
        await rm(draft, { force: true })
        throw new AlreadyRunning(dir, holder)
      }
      await rm(file, { force: true })
    }
  }
  await rm(draft, { force: true })
  return {
    publish: async (running) => {
      await write({ ...own, ...running })
      await rename(draft, file)
    },
    release: () => rm(file, { force: true }),
  }
}
