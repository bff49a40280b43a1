import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/**
 * Processes of this machine. A pid alone says little, because pids are used again: a process is a pid and the moment at which it started.
 * Linux answers from `/proc` (microseconds, so synchronous); elsewhere `ps` does.
 */
export type Process = { pid: number; startTime: string }
type Stat = Process & { parent: number; group: number; zombie: boolean }

const onLinux = process.platform === 'linux'

/** Start times count from this boot, and pids in this namespace: after a restart of machine or container both begin anew. */
const readEra = (): string => {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').slice(0, 8)
    return `${boot}-${readlinkSync('/proc/self/ns/pid').replace(/\D/g, '')}`
  } catch {
    return 'era'
  }
}
const era = readEra()
const eraOf = (startTime: string): string => startTime.slice(0, startTime.lastIndexOf('.'))

/** Fields of `/proc/<pid>/stat` after the command, which is in brackets and may hold anything: state, ppid, pgrp, …, 22nd: start time. */
const linuxStat = (pid: number): Stat | null => {
  let text: string
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    return null
  }
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return {
    pid,
    parent: Number(fields[1]),
    group: Number(fields[2]),
    startTime: `${era}.${fields[19]}`,
    zombie: fields[0] === 'Z' || fields[0] === 'X',
  }
}

/** Lines of `ps`, or none if it finds no such process. */
const ps = (args: string[]): string[] => {
  try {
    return execFileSync('ps', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
      .split('\n')
      .filter((line) => line.trim() !== '')
  } catch {
    return []
  }
}

const PS_FIELDS = 'pid=,ppid=,pgid=,state=,lstart='
const fromPs = (line: string): Stat => {
  const [pid, parent, group, state = '', ...startTime] = line.trim().split(/\s+/)
  return {
    pid: Number(pid),
    parent: Number(parent),
    group: Number(group),
    startTime: `${era}.${startTime.join(' ')}`,
    zombie: state.startsWith('Z'),
  }
}

const statOf = (pid: number): Stat | null => {
  if (onLinux) return linuxStat(pid)
  const [line] = ps(['-o', PS_FIELDS, '-p', String(pid)])
  return line === undefined ? null : fromPs(line)
}

const allStats = (): Stat[] => {
  if (!onLinux) return ps(['-A', '-o', PS_FIELDS]).map(fromPs)
  return readdirSync('/proc').flatMap((name) => (/^\d+$/.test(name) ? (linuxStat(Number(name)) ?? []) : []))
}

/** The mark that every process of a sandbox inherits. */
const MARK = 'LAP_SANDBOX_ID='
export const sandboxVariable = (sandboxId: string): string => `${MARK}${sandboxId}`

const linuxMark = (pid: number): string | null => {
  try {
    const text = readFileSync(`/proc/${pid}/environ`, 'latin1')
    return text.includes(MARK) ? (text.split('\0').find((entry) => entry.startsWith(MARK)) ?? null) : null
  } catch {
    return null
  }
}

/**
 * Marks that were seen: most processes of a busy machine belong to sandboxes, and reading an environment costs more than all else. Only those with a mark
 * are kept; one without may be about to get it.
 */
const marks = new Map<number, { startTime: string; mark: string }>()

const linuxMarks = (stats: Stat[]): Map<number, string> => {
  const found = new Map<number, string>()
  for (const { pid, startTime } of stats) {
    const known = marks.get(pid)
    const mark = known?.startTime === startTime ? known.mark : linuxMark(pid)
    if (mark === null) continue
    found.set(pid, mark)
    marks.set(pid, { startTime, mark })
  }
  for (const pid of marks.keys()) if (!found.has(pid)) marks.delete(pid)
  return found
}

const psMarks = (): Map<number, string> => {
  const lines = ps(['-A', '-E', '-ww', '-o', 'pid=,command='])
  return new Map(
    lines.flatMap((line) => {
      const mark = line.split(/\s+/).find((word) => word.startsWith(MARK))
      return mark === undefined ? [] : [[Number.parseInt(line, 10), mark] as const]
    }),
  )
}

type Look = { stats: Stat[]; marks: Map<number, string> }
const lookNow = (): Look => {
  const stats = allStats()
  return { stats, marks: onLinux ? linuxMarks(stats) : psMarks() }
}

/** A look at all processes takes milliseconds in which nothing else happens, so whoever asks within this time shares one. */
const sharedLookMs = 10
let coming: Promise<Look> | null = null
/** @returns a look that begins after the call */
const look = (): Promise<Look> => {
  coming ??= sleep(sharedLookMs).then(() => {
    coming = null
    return lookNow()
  })
  return coming
}

/** The moment at which a process started, in the system's own terms; null if there is none. */
export const startTimeOf = (pid: number): string | null => statOf(pid)?.startTime ?? null

/** A zombie is not alive: it holds nothing and does nothing. */
export const isAlive = ({ pid, startTime }: Process): boolean => {
  const stat = statOf(pid)
  return stat !== null && !stat.zombie && stat.startTime === startTime
}

/**
 * Whether a group is still that of a supervisor: as long as the group has a member, its number goes to no other process. So it is not if the number
 * belongs to another process, or was given in another era.
 */
const holdsGroup = (stats: Stat[], supervisor: Process): boolean => {
  const leader = stats.find(({ pid }) => pid === supervisor.pid)
  return leader === undefined ? eraOf(supervisor.startTime) === era : leader.startTime === supervisor.startTime
}

/**
 * Everything that belongs to a sandbox: what carries its variable, is in the group of its supervisor, or descends from either. A tool may leave the
 * group (`setsid`), clear its environment or lose its parent; hardly all three.
 */
export const processesOf = async (variable: string, supervisor: Process | null): Promise<Process[]> => {
  const seen = await look()
  const stats = seen.stats.filter(({ zombie }) => !zombie)
  const members = new Set(stats.flatMap(({ pid }) => (seen.marks.get(pid) === variable ? [pid] : [])))
  if (supervisor !== null && holdsGroup(seen.stats, supervisor))
    for (const { pid, group } of stats) if (group === supervisor.pid) members.add(pid)
  for (let grown = true; grown;) {
    grown = false
    for (const { pid, parent } of stats) {
      if (members.has(pid) || !members.has(parent)) continue
      members.add(pid)
      grown = true
    }
  }
  members.delete(process.pid)
  return stats.filter(({ pid }) => members.has(pid)).map(({ pid, startTime }) => ({ pid, startTime }))
}

/** Sends a signal if the process is still the same one. */
export const signalProcess = (target: Process, signal: NodeJS.Signals): void => {
  if (!isAlive(target)) return
  try {
    process.kill(target.pid, signal)
  } catch {
    // It ended meanwhile.
  }
}
