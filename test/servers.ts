import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { ProcessRecord } from '../tools/dev/process.ts'

/** The servers of a test run, kept for its teardown. */
export type TestServers = { stop(): Promise<void> }

// Set-up and teardown run in one process but load this module anew.
const store: typeof globalThis & { lapTestServers?: TestServers } = globalThis

export const setTestServers = (servers: TestServers): void => {
  store.lapTestServers = servers
}
export const testServers = (): TestServers | undefined => store.lapTestServers

/**
 * Ends these processes, with local sandboxes in the folder and a node of the cluster in `clusterDir`, and removes the folder when this process is gone, however it
 * went: its end closes the pipe that the watcher reads.
 * @returns a function that gives the watcher further processes
 */
export const watchOver = async (
  records: ProcessRecord[],
  dir: string,
  clusterDir?: string,
): Promise<(more: ProcessRecord) => void> => {
  const args = [fileURLToPath(new URL('watcher.ts', import.meta.url)), dir]
  if (clusterDir !== undefined) args.push(clusterDir)
  const watcher = spawn(process.execPath, args, { detached: true, stdio: ['pipe', 'ignore', 'ignore'] })
  watcher.unref()
  const pipe = watcher.stdin as typeof watcher.stdin & { unref?: () => void }
  pipe.on('error', () => undefined)
  pipe.unref?.()
  const add = (record: ProcessRecord): void => void pipe.write(`${JSON.stringify(record)}\n`)
  for (const record of records) add(record)
  return add
}
