import { readFileSync } from 'node:fs'

const countIn = (file: string): number | null => {
  try {
    const count = /^oom_kill (\d+)$/m.exec(readFileSync(file, 'utf8'))?.[1]
    return count === undefined ? null : Number(count)
  } catch {
    return null
  }
}

const ownGroup = (): string => {
  try {
    return /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1] ?? '/'
  } catch {
    return '/'
  }
}

/**
 * Processes that the kernel has killed for want of memory in our memory group, or on this machine; null where the system does not tell. It grows
 * between the start and the end of a process that died of it.
 */
export const oomKillsSoFar = (): number | null =>
  countIn(`/sys/fs/cgroup${ownGroup()}/memory.events`) ??
  countIn('/sys/fs/cgroup/memory.events') ??
  countIn('/proc/vmstat')
