import { execFileSync } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/** A process may start another one while it is being ended; each look catches what the one before let through. */
const looksMax = 5
const pauseMs = 10

/** On Linux from `/proc`, elsewhere from `ps`. */
const pidsWith = (variable: string): number[] => {
  const carries = (pid: string): boolean => {
    try {
      return readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(variable)
    } catch {
      return false
    }
  }
  if (process.platform === 'linux')
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && carries(name))
      .map(Number)
  return execFileSync('ps', ['-A', '-E', '-ww', '-o', 'pid=,command='], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.split(/\s+/).includes(variable))
    .map((line) => Number.parseInt(line, 10))
}

/**
 * Ends what a harness has left behind: tools run in groups of their own and outlive it.
 * @param variable `NAME=value` that every process of the harness has inherited, and no other has
 */
export const endLeftovers = async (variable: string): Promise<void> => {
  for (let look = 0; look < looksMax; look++) {
    const pids = pidsWith(variable).filter((pid) => pid !== process.pid)
    if (pids.length === 0) return
    for (const pid of pids)
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // It ended meanwhile.
      }
    await sleep(pauseMs)
  }
}
