import { closeSync, existsSync, ftruncateSync, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import type { JournalEntry } from '../domain/supervisor-protocol.ts'

type Distributed<T> = T extends unknown ? Omit<T, 'seq' | 'at'> : never
/** An entry to be appended; number and time are given by the journal. */
export type NewEntry = Distributed<JournalEntry>

/** One line of the journal: the entry's number and its JSON. */
export type JournalLine = { seq: number; json: string }

/** Everything the harness said, numbered from 1 without a gap. On disk before anybody hears of it. */
export type Journal = {
  lastSeq(): number
  append(entry: NewEntry): number
  /** At most `max` entries after `after`. */
  read(after: number, max: number): JournalLine[]
  /** Resolves at the next append, or by the signal. */
  grown(signal: AbortSignal): Promise<void>
  /** Turns that were begun (false) or are over (true), by id. */
  turns(): Map<string, boolean>
  close(): void
}

/** Recent entries kept in memory, in number and characters; whoever is further behind reads the file. */
const recentMax = 1_000
const recentCharsMax = 4 * 1024 * 1024

export const openJournal = (file: string): Journal => {
  /** `ends[seq]`: offset in the file behind that entry. */
  const ends = [0]
  const turns = new Map<string, boolean>()
  const note = (entry: NewEntry): void => {
    if (entry.type === 'turn_started') turns.set(entry.turn_id, false)
    if (entry.type === 'turn_finished') turns.set(entry.turn_id, true)
  }
  if (existsSync(file))
    for (const line of readFileSync(file, 'utf8').split('\n').slice(0, -1)) {
      ends.push(ends.at(-1)! + Buffer.byteLength(line) + 1)
      note(JSON.parse(line) as JournalEntry)
    }
  const fd = openSync(file, 'a+', 0o600)
  // A line that a dying supervisor did not finish was never told to anybody.
  ftruncateSync(fd, ends.at(-1))
  const recent: JournalLine[] = []
  let recentChars = 0
  let waiting: (() => void)[] = []
  const lastSeq = (): number => ends.length - 1

  const fromFile = (after: number, until: number): JournalLine[] => {
    const start = ends[after]!
    const bytes = Buffer.alloc(ends[until]! - start)
    readSync(fd, bytes, 0, bytes.length, start)
    return bytes
      .toString('utf8')
      .split('\n')
      .slice(0, -1)
      .map((json, i) => ({ seq: after + 1 + i, json }))
  }

  return {
    lastSeq,
    turns: () => turns,
    append(entry) {
      const seq = lastSeq() + 1
      const json = JSON.stringify({ seq, at: new Date().toISOString(), ...entry })
      const bytes = Buffer.from(`${json}\n`)
      for (let written = 0; written < bytes.length;) written += writeSync(fd, bytes, written)
      ends.push(ends.at(-1)! + bytes.length)
      note(entry)
      recent.push({ seq, json })
      recentChars += json.length
      while (recent.length > recentMax || recentChars > recentCharsMax) recentChars -= recent.shift()?.json.length ?? 0
      const woken = waiting
      waiting = []
      for (const wake of woken) wake()
      return seq
    },
    read(after, max) {
      const until = Math.min(lastSeq(), after + max)
      if (until <= after) return []
      const first = recent[0]?.seq ?? Number.POSITIVE_INFINITY
      return after + 1 >= first ? recent.slice(after + 1 - first, until + 1 - first) : fromFile(after, until)
    },
    grown: (signal) =>
      new Promise((resolve) => {
        if (signal.aborted) return resolve()
        const done = (): void => {
          signal.removeEventListener('abort', done)
          waiting = waiting.filter((other) => other !== done)
          resolve()
        }
        signal.addEventListener('abort', done)
        waiting.push(done)
      }),
    close: () => closeSync(fd),
  }
}
