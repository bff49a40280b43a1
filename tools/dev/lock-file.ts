import { randomUUID } from 'node:crypto'
import { link, readFile, rm, writeFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { isRunning, type ProcessRecord, recordOf } from './process.ts'

/** Another one removes the lock of a process that is gone; it takes milliseconds. */
const STALE_POLL_MS = 10

/** What is in a lock file: a process, and whatever else its owner writes there. */
export type LockHolder = Partial<ProcessRecord> & Record<string, unknown>

/** @returns null when there is no file; an empty holder for half of one, which is left by a machine that went down while writing */
const readHolder = async (file: string): Promise<LockHolder | null> => {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as LockHolder
  } catch (error) {
    return Error.isError(error) && 'code' in error && error.code === 'ENOENT' ? null : {}
  }
}

/** Start times are compared, so a reused process id holds nothing. */
const holds = ({ pid, started }: LockHolder): boolean =>
  typeof pid === 'number' && typeof started === 'string' && isRunning({ pid, started })

/** Of all who see a lock whose process is gone one looks again and removes it: else the second would remove what the first has taken by then. */
const removeStale = async (file: string): Promise<void> => {
  const above = `${file}.stale`
  if ((await takeLockFile(above)) !== null) return sleep(STALE_POLL_MS)
  try {
    const holder = await readHolder(file)
    if (holder !== null && !holds(holder)) await rm(file, { force: true })
  } finally {
    await rm(above, { force: true })
  }
}

/**
 * Makes the file, with the record of this process in it, unless a process that runs has it. Whoever has it gives it back by removing it.
 * @returns null when it is ours now, else who has it
 */
export const takeLockFile = async (file: string): Promise<LockHolder | null> => {
  const own = recordOf(process.pid)
  if (own === null) throw new Error('This process does not find itself among those that run')
  const draft = `${file}.${randomUUID()}`
  await writeFile(draft, `${JSON.stringify(own, null, 2)}\n`, { mode: 0o600 })
  try {
    for (;;) {
      try {
        // Unlike a rename, a link fails when the file exists: of two that come together one gets it.
        await link(draft, file)
        return null
      } catch (error) {
        if (!(Error.isError(error) && 'code' in error && error.code === 'EEXIST')) throw error
      }
      const holder = await readHolder(file)
      if (holder === null) continue
      if (holds(holder)) return holder
      await removeStale(file)
    }
  } finally {
    await rm(draft, { force: true })
  }
}
