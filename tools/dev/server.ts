import type { SpawnOptions } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import type { RunningPart } from './keeper.ts'
import { endProcess, type ProcessRecord, startProcess } from './process.ts'

const READY_TIMEOUT_MS = 60_000
const READY_POLL_MS = 30

export type ServerOptions = {
  /** For messages. */
  name: string
  spawn?: SpawnOptions
  isReady: () => Promise<boolean>
  stopSignal: NodeJS.Signals
  /** For one that does not become ready. */
  giveUpSignal: NodeJS.Signals
  /** What a signal may take before it is ended. */
  stopTimeoutMs: number
  onOutput?: ((text: string) => void) | undefined
  /** Told as soon as the process exists. */
  onSpawn?: ((record: ProcessRecord) => void) | undefined
}

/**
 * Starts a server and resolves when it is ready. It is in a group of its own: Ctrl-C in a terminal reaches the whole group at once, and servers must be
 * the last to go.
 * @throws Error with its last lines when it ends or does not become ready
 */
export const startServer = async (command: string, args: string[], options: ServerOptions): Promise<RunningPart> => {
  const { name, onOutput, onSpawn, stopTimeoutMs } = options
  const { child, record, lastLines } = await startProcess(command, args, {
    ...options.spawn,
    detached: true,
    ...(onOutput === undefined ? {} : { onOutput }),
    ...(onSpawn === undefined ? {} : { onSpawn }),
  })
  let isOver = false
  const exited = new Promise<void>((resolve) => {
    child.once('exit', () => {
      isOver = true
      resolve()
    })
  })
  const deadline = Date.now() + READY_TIMEOUT_MS
  while (!(await options.isReady())) {
    if (isOver) throw new Error(`${name} ended at once:\n${lastLines()}`)
    if (Date.now() > deadline) {
      await endProcess(record, options.giveUpSignal, stopTimeoutMs)
      throw new Error(`${name} did not become ready in ${READY_TIMEOUT_MS / 1_000} s:\n${lastLines()}`)
    }
    await sleep(READY_POLL_MS)
  }
  const stop = async (): Promise<void> => {
    await endProcess(record, options.stopSignal, stopTimeoutMs)
    await exited
  }
  return { record, exited, stop }
}
