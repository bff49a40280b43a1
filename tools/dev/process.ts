import { type ChildProcess, spawn, type SpawnOptions } from 'node:child_process'
import { isAlive, startTimeOf } from '../../local/processes.ts'

/** A process by id and start time: an id alone may belong to another one by now. */
export type ProcessRecord = { pid: number; started: string }

/** The record of a running process; null when there is none with this id. */
export const recordOf = (pid: number): ProcessRecord | null => {
  const started = startTimeOf(pid)
  return started === null ? null : { pid, started }
}

export const isRunning = ({ pid, started }: ProcessRecord): boolean => isAlive({ pid, startTime: started })

const send = (record: ProcessRecord, signal: NodeJS.Signals): void => {
  if (!isRunning(record)) return
  try {
    process.kill(record.pid, signal)
  } catch (error) {
    if (!(Error.isError(error) && 'code' in error && error.code === 'ESRCH')) throw error
  }
}

/** Resolves to whether the process ended within that time. */
const ended = async (record: ProcessRecord, withinMs: number): Promise<boolean> => {
  const deadline = Date.now() + withinMs
  while (isRunning(record)) {
    if (Date.now() > deadline) return false
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return true
}

/** Asks a process to end, and ends it when it does not within that time. */
export const endProcess = async (record: ProcessRecord, signal: NodeJS.Signals, graceMs: number): Promise<void> => {
  send(record, signal)
  if (await ended(record, graceMs)) return
  send(record, 'SIGKILL')
  await ended(record, 10_000)
}

/** Starts a process and resolves when it runs; its last lines of output are kept for error messages. */
export const startProcess = async (
  command: string,
  args: string[],
  options: SpawnOptions & { onOutput?: (text: string) => void; onSpawn?: (record: ProcessRecord) => void },
): Promise<{ child: ChildProcess; record: ProcessRecord; lastLines: () => string }> => {
  const { onOutput, onSpawn, ...spawnOptions } = options
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...spawnOptions })
  const pid = child.pid ?? -1
  const record = recordOf(pid) ?? { pid, started: 'ended' }
  onSpawn?.(record)
  let tail = ''
  const keep = (chunk: Buffer): void => {
    const text = chunk.toString()
    tail = (tail + text).slice(-4_000)
    onOutput?.(text)
  }
  child.stdout?.on('data', keep)
  child.stderr?.on('data', keep)
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve)
    child.once('error', reject)
  })
  return { child, record, lastLines: () => tail.trim() }
}
