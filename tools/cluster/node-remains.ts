import { readdirSync, readFileSync } from 'node:fs'
import { readdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { endProcess, isRunning, type ProcessRecord, recordOf } from '../dev/process.ts'
import { run } from '../image/run.ts'
import { socketOf } from './node-config.ts'

/** What a node is on this machine beside its processes; written before any of it exists. */
export type NodeRecord = { clusterDir: string; bridge: string; processes: (ProcessRecord & { name: string })[] }

const STOP_TIMEOUT_MS = 10_000
const CGROUPS = '/sys/fs/cgroup'
/** Where containerd puts the control groups of its containers for Kubernetes. */
const CGROUP = 'k8s.io'

export const recordFile = (dir: string): string => path.join(dir, 'node.json')

export const readRecord = async (dir: string): Promise<NodeRecord | null> => {
  const text = await readFile(recordFile(dir), 'utf8').catch(() => null)
  return text === null ? null : (JSON.parse(text) as NodeRecord)
}

const namesIn = (dir: string): Promise<string[]> => readdir(dir).catch(() => [])

/** First processes of the containers, as the runtime wrote them down. An id that is somebody else's by now has not the container's control group. */
const containerProcesses = async (dir: string): Promise<ProcessRecord[]> => {
  const tasks = path.join(dir, 'state', 'io.containerd.runtime.v2.task', CGROUP)
  const found: ProcessRecord[] = []
  for (const id of await namesIn(tasks)) {
    const pid = Number(await readFile(path.join(tasks, id, 'init.pid'), 'utf8').catch(() => '0'))
    const groups = await readFile(`/proc/${pid}/cgroup`, 'utf8').catch(() => '')
    const record = groups.includes(id) ? recordOf(pid) : null
    if (record !== null) found.push(record)
  }
  return found
}

/** They outlive containerd, and know each other by its socket. */
const shimProcesses = (dir: string): ProcessRecord[] => {
  const socket = socketOf(dir)
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name)) return []
    try {
      const words = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0')
      const isShim = (words[0] ?? '').endsWith('containerd-shim-runc-v2') && words.includes(socket)
      const record = isShim ? recordOf(Number(name)) : null
      return record === null ? [] : [record]
    } catch {
      return []
    }
  })
}

/** Sockets of the shims, which lie outside of the folder. */
const removeShimSockets = async (dir: string): Promise<void> => {
  const tasks = path.join(dir, 'state', 'io.containerd.runtime.v2.task', CGROUP)
  for (const id of await namesIn(tasks)) {
    const address = await readFile(path.join(tasks, id, 'address'), 'utf8').catch(() => '')
    if (address.startsWith('unix://')) await rm(address.slice('unix://'.length), { force: true })
  }
}

const endAll = async (records: ProcessRecord[], signal: NodeJS.Signals): Promise<void> => {
  await Promise.all(records.map((record) => endProcess(record, signal, STOP_TIMEOUT_MS)))
}

const unmountAll = async (dir: string): Promise<void> => {
  const mounts = (await readFile('/proc/self/mounts', 'utf8'))
    .split('\n')
    .map((row) => row.split(' ')[1] ?? '')
    .filter((target) => target.startsWith(`${dir}/`))
  for (const target of mounts.toReversed()) await run('umount', ['--lazy', target])
}

const removeControlGroups = async (): Promise<void> => {
  const roots = [CGROUPS, ...(await namesIn(CGROUPS)).map((name) => path.join(CGROUPS, name))]
  for (const root of roots) {
    const group = path.join(root, CGROUP)
    // Only those without a process can be removed, and only those are ours to remove.
    for (const name of await namesIn(group)) await rmdir(path.join(group, name)).catch(() => {})
    await rmdir(group).catch(() => {})
  }
}

/** Input for `iptables-restore` that takes away the chains of kube-proxy and what jumps into them; empty when there are none. */
const withoutKubeChains = (saved: string): string => {
  const tables = saved.split(/^(?=\*)/m).map((table) => {
    const lines = table.split('\n')
    const chains = lines.flatMap((line) => /^:(KUBE-\S+)/.exec(line)?.[1] ?? [])
    if (chains.length === 0) return ''
    const jumps = lines.filter((line) => /^-A (?!KUBE-).* -j KUBE-/.test(line)).map((line) => line.replace('-A', '-D'))
    const emptied = chains.map((chain) => `:${chain} - [0:0]`)
    const removed = chains.map((chain) => `-X ${chain}`)
    return [lines[0], ...emptied, ...jumps, ...removed, 'COMMIT', ''].join('\n')
  })
  return tables.join('')
}

const removeNetwork = async (dir: string, { bridge }: NodeRecord): Promise<void> => {
  for (const family of ['iptables', 'ip6tables']) {
    const changes = withoutKubeChains(await run(`${family}-save`, []))
    if (changes === '') continue
    const file = path.join(dir, `${family}.changes`)
    await writeFile(file, changes)
    await run(`${family}-restore`, ['--noflush', file])
  }
  await run('ip', ['link', 'delete', bridge]).catch((error: unknown) => {
    if (!String(error).includes('Cannot find device')) throw error
  })
}

/** Chains of a kube-proxy, in rules of this machine. */
export const kubeChains = async (): Promise<string[]> => {
  const saved = await run('iptables-save', []).catch(() => '')
  return [...saved.matchAll(/^:(KUBE-\S+)/gm)].map(([, chain = '']) => chain)
}

/** Ends what the folder says was started, and takes its containers, mounts, addresses and rules off the machine. Repeatable. @returns whether there was a node */
export const endNode = async (dir: string): Promise<boolean> => {
  const record = await readRecord(dir)
  if (record === null) return false
  const named = (...names: string[]): ProcessRecord[] =>
    record.processes.filter((each) => names.includes(each.name) && isRunning(each))
  await endAll(named('kubelet', 'kubeProxy'), 'SIGTERM')
  await endAll(await containerProcesses(dir), 'SIGKILL')
  await endAll(named('containerd'), 'SIGTERM')
  await endAll(shimProcesses(dir), 'SIGKILL')
  // A shim that was cut off may have left one.
  await endAll(await containerProcesses(dir), 'SIGKILL')
  await removeShimSockets(dir)
  await unmountAll(dir)
  await removeControlGroups()
  await removeNetwork(dir, record)
  await rm(dir, { recursive: true })
  return true
}
