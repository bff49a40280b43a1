import { renameSync, writeFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { endProcess, isRunning, type ProcessRecord } from './process.ts'

/** A started part of the stack: one process. */
export type RunningPart = { record: ProcessRecord; exited: Promise<void>; stop(): Promise<void> }

/** Starts a part; tells its process as soon as it exists, long before it is ready. The signal ends the start and what it has started. */
export type StartPart = (onSpawn: (record: ProcessRecord) => void, signal: AbortSignal) => Promise<RunningPart>

const RESTART_DELAY_FIRST_MS = 500
const RESTART_DELAY_MAX_MS = 15_000
/** A part that ends so many times within `FAILURE_WINDOW_MS` does not come up by trying again. */
const FAILURES_MAX = 8
const FAILURE_WINDOW_MS = 5 * 60_000
/** An orphan of a start that was killed gets this long to end by itself. */
const ORPHAN_GRACE_MS = 5_000

export type Keeper = {
  /** Starts a part for the first time, then again whenever it ends without having been told to. */
  start(name: string, start: StartPart): Promise<void>
  has(name: string): boolean
  /** Ends a part for good. */
  stop(name: string): Promise<void>
  /** Rejects when a part could not be kept running. */
  failed: Promise<never>
}

/** `watching` is over when the part has ended for good. */
type Entry = { part: RunningPart; stopping: AbortController; failures: number[]; watching: Promise<void> }

type NamedRecord = ProcessRecord & { name: string }

const recordsFile = (dir: string): string => path.join(dir, 'processes.json')

/** Ends what a start that was killed (-9) has left, the last started first. */
export const endOrphans = async (dir: string): Promise<string[]> => {
  const text = await readFile(recordsFile(dir), 'utf8').catch(() => '[]')
  let records: NamedRecord[]
  try {
    records = JSON.parse(text) as typeof records
  } catch {
    return []
  }
  const names: string[] = []
  for (const record of records.toReversed()) {
    if (!isRunning(record)) continue
    names.push(record.name)
    await endProcess(record, record.name === 'Postgres' ? 'SIGINT' : 'SIGTERM', ORPHAN_GRACE_MS)
  }
  await writeFile(recordsFile(dir), '[]\n')
  return names
}

/** Each change is on disk when it returns: between the start of a process and its record nothing else happens, so a kill (-9) leaves none unrecorded. */
const createRecords = (dir: string): { set(name: string, record: ProcessRecord): void; delete(name: string): void } => {
  const records = new Map<string, ProcessRecord>()
  const write = (): void => {
    const named: NamedRecord[] = [...records].map(([name, record]) => ({ name, ...record }))
    writeFileSync(`${recordsFile(dir)}.new`, `${JSON.stringify(named)}\n`, { mode: 0o600 })
    renameSync(`${recordsFile(dir)}.new`, recordsFile(dir))
  }
  return {
    set: (name, record) => {
      records.set(name, record)
      write()
    },
    delete: (name) => {
      records.delete(name)
      write()
    },
  }
}

/** Keeps the parts of the stack running and writes down their processes, so that the next start finds what this one may leave. */
export const createKeeper = (
  dir: string,
  say: (text: string) => void,
  firstDelayMs = RESTART_DELAY_FIRST_MS,
): Keeper => {
  const entries = new Map<string, Entry>()
  let fail: (error: Error) => void = () => {}
  const failed = new Promise<never>((_resolve, reject) => (fail = reject))
  failed.catch(() => {})

  const records = createRecords(dir)

  const restart = async (name: string, entry: Entry, start: StartPart): Promise<void> => {
    for (;;) {
      const now = Date.now()
      entry.failures = [...entry.failures.filter((at) => now - at < FAILURE_WINDOW_MS), now]
      if (entry.failures.length >= FAILURES_MAX) {
        entry.stopping.abort()
        const often = `${FAILURES_MAX} times in ${FAILURE_WINDOW_MS / 60_000} minutes`
        return fail(new Error(`${name} ended ${often}; see ${dir}/logs`))
      }
      const delayMs = Math.min(firstDelayMs * 2 ** (entry.failures.length - 1), RESTART_DELAY_MAX_MS)
      say(`${name} has ended unexpectedly; starting it again in ${delayMs / 1_000} s`)
      const { signal } = entry.stopping
      await sleep(delayMs, undefined, { signal }).catch(() => {})
      if (signal.aborted) return
      try {
        entry.part = await start((record) => records.set(name, record), signal)
        // A part that came up while it was told to stop is not kept.
        if (signal.aborted) return await entry.part.stop()
        return say(`${name} runs again`)
      } catch (error) {
        if (signal.aborted) return
        say(Error.isError(error) ? error.message : String(error))
      }
    }
  }

  const watch = async (name: string, entry: Entry, start: StartPart): Promise<void> => {
    while (!entry.stopping.signal.aborted) {
      await entry.part.exited
      if (!entry.stopping.signal.aborted) await restart(name, entry, start)
    }
  }

  return {
    failed,
    has: (name) => entries.has(name),
    start: async (name, start) => {
      const stopping = new AbortController()
      const part = await start((record) => records.set(name, record), stopping.signal)
      const entry: Entry = { part, stopping, failures: [], watching: Promise.resolve() }
      entries.set(name, entry)
      entry.watching = watch(name, entry, start).catch(fail)
    },
    stop: async (name) => {
      const entry = entries.get(name)
      if (entry === undefined) return
      entry.stopping.abort()
      await entry.part.stop()
      await entry.watching
      entries.delete(name)
      records.delete(name)
    },
  }
}
