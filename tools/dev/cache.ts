import { randomUUID } from 'node:crypto'
import { link, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isRunning, type ProcessRecord, recordOf } from './process.ts'

/** Where what is built or fetched once is kept for all clones of this user. */
export const cacheDir = (): string => process.env['LAP_CACHE'] || path.join(os.homedir(), '.cache', 'lap')

const POLL_MS = 500

const holderOf = async (file: string): Promise<ProcessRecord | null> => {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as ProcessRecord
  } catch {
    return null
  }
}

/**
 * One builds, the others wait: two builds at once take more than twice the time of one. Whoever works puts its result in place whole, so a lock that
 * fails costs time only. A lock whose process is gone is taken over.
 */
export const withBuildLock = async (file: string, onWait: () => void, work: () => Promise<void>): Promise<void> => {
  const draft = `${file}.${randomUUID()}`
  await writeFile(draft, JSON.stringify(recordOf(process.pid)))
  let waits = 0
  for (;;) {
    try {
      // Unlike a rename, a link fails when the file exists: of two that start together one gets it.
      await link(draft, file)
      break
    } catch (error) {
      if (!(Error.isError(error) && 'code' in error && error.code === 'EEXIST')) throw error
      const holder = await holderOf(file)
      if (holder === null || !isRunning(holder)) await rm(file, { force: true })
      else {
        if (waits++ === 0) onWait()
        await sleep(POLL_MS)
      }
    }
  }
  await rm(draft, { force: true })
  try {
    await work()
  } finally {
    await rm(file, { force: true })
  }
}
