import { rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { takeLockFile } from './lock-file.ts'

/** Where what is built or fetched once is kept for all clones of this user. */
export const cacheDir = (): string => process.env['LAP_CACHE'] || path.join(os.homedir(), '.cache', 'lap')

const POLL_MS = 500

/**
 * One builds, the others wait: two builds at once take more than twice the time of one. Whoever works puts its result in place whole, so a lock that
 * fails costs time only. A lock whose process is gone is taken over.
 */
export const withBuildLock = async <T>(file: string, onWait: () => void, work: () => Promise<T>): Promise<T> => {
  for (let waits = 0; (await takeLockFile(file)) !== null; waits++) {
    if (waits === 0) onWait()
    await sleep(POLL_MS)
  }
  try {
    return await work()
  } finally {
    await rm(file, { force: true })
  }
}
