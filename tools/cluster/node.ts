import { renameSync, writeFileSync } from 'node:fs'
import { mkdir, open, readdir, readFile, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { cacheDir, withBuildLock } from '../dev/cache.ts'
import { freePort } from '../dev/ports.ts'
import { isRunning, type ProcessRecord, startProcess } from '../dev/process.ts'
import type { Image } from '../image/images.ts'
import { run } from '../image/run.ts'
import { buildBinaries, findGo, NODE } from './binaries.ts'
import { kubeconfigOf, REAL_NODE } from './credentials.ts'
import { connectKube, type Kube, readAccess } from './kube.ts'
import { cniConfig, containerdConfig, daemonsOf, kubeletConfig, type NodePlan, socketOf } from './node-config.ts'
import { canInstall, findCommand, installPackages, missingPackages } from './node-packages.ts'
import { endNode, kubeChains, type NodeRecord, readRecord, recordFile } from './node-remains.ts'
import { until } from './until.ts'

/**
 * A real node for the control plane of this folder: containerd and runc of Debian, kubelet and kube-proxy of the pinned modules, on this machine itself. One at a time:
 * the rules of kube-proxy are the machine's.
 */
const PACKAGES = { containerd: 'containerd', runc: 'runc', iptables: 'iptables', ip: 'iproute2' }

export type NodeOptions = {
  /** Its state. Fixed for a machine, so that the next one finds what an earlier one left. */
  dir?: string
  /** Of the control plane. */
  clusterDir: string
  pause: Image
  /** What pods may be made of; there is no registry. */
  images: Image[]
  say?: (text: string) => void
  onSpawn?: (record: ProcessRecord) => void
}

export type RealNode = AsyncDisposable & {
  name: string
  /** This machine as its pods see it; nobody else does. Also where NodePorts are. */
  address: string
  /** `ctr` on the node's containerd. @returns what it prints */
  ctr(...args: string[]): Promise<string>
  /** @throws Error with the name and the log of a daemon of it that has ended */
  assertRuns(): void
  stop(): Promise<void>
}

const nodeDir = (): string => path.resolve(process.env['LAP_NODE_DIR'] || '/var/lib/lap-node')

/** Bit of `CapEff` in /proc/self/status. */
const CAP_SYS_ADMIN = 21n

const reasonAgainst = async (dir: string): Promise<string | null> => {
  if (process.platform !== 'linux') return `a node needs Linux, this is ${process.platform}`
  if (process.getuid?.() !== 0) return 'a node needs root'
  const status = await readFile('/proc/self/status', 'utf8')
  const capabilities = BigInt(`0x${/^CapEff:\s*(\w+)/m.exec(status)?.[1] ?? '0'}`)
  if (((capabilities >> CAP_SYS_ADMIN) & 1n) === 0n)
    return 'a node mounts file systems, and this root may not (CAP_SYS_ADMIN)'
  if (!(await readFile('/proc/filesystems', 'utf8')).includes('overlay')) return 'the kernel has no overlay file system'
  if (!(await readFile('/proc/self/mounts', 'utf8')).includes(' /sys/fs/cgroup')) return 'no control groups are mounted'
  const missing = await missingPackages(PACKAGES)
  if (missing.length > 0 && !(await canInstall()))
    return `missing, and not to be had without apt-get: ${missing.join(' ')}`
  try {
    await findGo()
  } catch (error) {
    return Error.isError(error) ? error.message : String(error)
  }
  const record = await readRecord(dir)
  if (record !== null && record.processes.some(isRunning)) return `a node runs already, in ${dir}`
  if (record === null && (await kubeChains()).length > 0)
    return 'there are rules of a kube-proxy already (iptables-save shows KUBE-…): this machine is a node'
  return null
}

export const canRunNode = async (dir = nodeDir()): Promise<{ ok: true } | { ok: false; reason: string }> => {
  const reason = await reasonAgainst(dir)
  return reason === null ? { ok: true } : { ok: false, reason }
}

const assertAble = async (dir: string): Promise<void> => {
  const able = await canRunNode(dir)
  if (!able.ok) throw new Error(`No node can run here: ${able.reason}`)
}

/** A network of 254 addresses that this machine is not in. */
const freeSubnet = (): { address: string; subnet: string } => {
  const used = Object.values(os.networkInterfaces()).flatMap((each) => (each ?? []).map(({ address }) => address))
  for (let third = 0; third < 256; third++) {
    const prefix = `10.244.${third}.`
    if (!used.some((address) => address.startsWith(prefix))) return { address: `${prefix}1`, subnet: `${prefix}0/24` }
  }
  throw new Error('No network is free in 10.244.0.0/16')
}

const prepare = async ({
  dir,
  clusterDir,
  pause,
  say = () => {},
}: NodeOptions & { dir: string }): Promise<NodePlan> => {
  await assertAble(dir)
  await installPackages(PACKAGES, say)
  const binaries = await buildBinaries(NODE, say)
  await endNode(dir)
  await mkdir(path.join(dir, 'logs'), { recursive: true, mode: 0o700 })
  if ((await readdir(dir)).some((name) => name !== 'logs')) throw new Error(`${dir} holds something else than a node`)
  const [kubeletPort, proxyHealthPort, proxyMetricsPort] = [await freePort(), await freePort(), await freePort()]
  const bridge = `lap-${process.pid}`
  const ports = { kubeletPort, proxyHealthPort, proxyMetricsPort }
  const imagesDir = path.join(cacheDir(), 'node')
  return { dir, imagesDir, clusterDir, binaries, bridge, ...freeSubnet(), pauseImage: pause.name, ...ports }
}

const writeConfigs = async (plan: NodePlan): Promise<void> => {
  const { dir } = plan
  await mkdir(path.join(dir, 'cni'))
  await Promise.all([
    writeFile(path.join(dir, 'containerd.toml'), containerdConfig(plan)),
    writeFile(path.join(dir, 'kubelet.json'), JSON.stringify(kubeletConfig(plan), null, 2)),
    writeFile(path.join(dir, 'cni', '10-lap.conflist'), JSON.stringify(cniConfig(plan), null, 2)),
  ])
}

type Daemons = { start(name: 'containerd' | 'kubelet' | 'kubeProxy'): Promise<void>; assertRun(): void }

const manageDaemons = async (plan: NodePlan, onSpawn?: NodeOptions['onSpawn']): Promise<Daemons> => {
  const { dir, clusterDir, bridge } = plan
  const daemons = daemonsOf(plan, (await findCommand('containerd')) ?? 'containerd')
  const record: NodeRecord = { clusterDir, bridge, processes: [] }
  const write = (): void => {
    writeFileSync(`${recordFile(dir)}.new`, JSON.stringify(record, null, 2))
    renameSync(`${recordFile(dir)}.new`, recordFile(dir))
  }
  write()
  return {
    start: async (name) => {
      const { command, args } = daemons[name]
      const log = await open(path.join(dir, 'logs', `${name}.log`), 'a')
      const { child } = await startProcess(command, args, {
        cwd: dir,
        detached: true,
        stdio: ['ignore', log.fd, log.fd],
        onSpawn: (each) => {
          record.processes.push({ name, ...each })
          write()
          onSpawn?.(each)
        },
      })
      child.unref()
      await log.close()
    },
    assertRun: () => {
      const ended = record.processes.find((each) => !isRunning(each))
      if (ended !== undefined) throw new Error(`${ended.name} has ended; see ${dir}/logs/${ended.name}.log`)
    },
  }
}

type Conditions = { status: { conditions?: { type: string; status: string }[] } }

const isReady = async (kube: Kube): Promise<boolean> => {
  const { status } = await kube.get<Conditions>(`/api/v1/nodes/${REAL_NODE}`)
  return status.conditions?.some((each) => each.type === 'Ready' && each.status === 'True') ?? false
}

/** Only what is not there yet: unpacking a gigabyte takes half a minute. Images of before, and containers that a crash left, go. */
const takeImages = async (images: Image[], ctr: RealNode['ctr']): Promise<void> => {
  const containers = (await ctr('containers', 'ls', '-q')).split('\n').filter((id) => id !== '')
  for (const container of containers) await ctr('containers', 'rm', container)
  const [, ...rows] = (await ctr('images', 'ls')).trim().split('\n')
  const before = rows.map((row) => row.split(/\s+/)).map(([name = '', , digest]) => ({ name, digest }))
  const digestOf = (wanted: string): string | undefined => before.find(({ name }) => name === wanted)?.digest
  // Beside its own name each has one that Kubernetes gave it, and is kept by either.
  const kept = images.map(({ name }) => digestOf(name))
  const old = before.filter(({ digest }) => !kept.includes(digest))
  if (old.length > 0) await ctr('images', 'rm', '--sync', ...old.map(({ name }) => name))
  for (const { name, file } of images) if (digestOf(name) === undefined) await ctr('images', 'import', file)
}

const startAll = async (plan: NodePlan, options: NodeOptions, ctr: RealNode['ctr']): Promise<Daemons> => {
  const { bridge, address, proxyHealthPort } = plan
  const daemons = await manageDaemons(plan, options.onSpawn)
  await writeConfigs(plan)
  // Before the kubelet, whose address has to be one of this machine; the CNI plugin takes the bridge as it is.
  await run('ip', ['link', 'add', bridge, 'type', 'bridge'])
  await run('ip', ['address', 'add', `${address}/24`, 'dev', bridge])
  await run('ip', ['link', 'set', bridge, 'up'])
  await daemons.start('containerd')
  await until('containerd answers', async () => (await ctr('version')) !== '', daemons.assertRun)
  await takeImages([options.pause, ...options.images], ctr)
  await daemons.start('kubelet')
  await daemons.start('kubeProxy')
  await using kube = connectKube(await readAccess(kubeconfigOf(plan.clusterDir, 'admin')))
  await until('The node is ready', () => isReady(kube), daemons.assertRun)
  const healthz = `http://127.0.0.1:${proxyHealthPort}/healthz`
  await until('kube-proxy has its rules', async () => (await fetch(healthz)).ok, daemons.assertRun)
  return daemons
}

/** Ends this machine's node, if it is one of the control plane in that folder. @returns whether it was */
export const endNodeOf = async (clusterDir: string): Promise<boolean> => {
  const record = await readRecord(nodeDir())
  return record?.clusterDir === clusterDir && endNode(nodeDir())
}

const startAlone = async (dir: string, options: NodeOptions): Promise<RealNode> => {
  const plan = await prepare({ ...options, dir })
  const ctr = (...args: string[]): Promise<string> => run('ctr', ['-a', socketOf(dir), '-n', 'k8s.io', ...args])
  const stop = async (): Promise<void> => void (await endNode(dir))
  try {
    const { assertRun } = await startAll(plan, options, ctr)
    return { name: REAL_NODE, address: plan.address, ctr, assertRuns: assertRun, stop, [Symbol.asyncDispose]: stop }
  } catch (error) {
    const keep = path.join(os.tmpdir(), `lap-node-logs-${process.pid}`)
    await run('cp', ['-r', path.join(dir, 'logs'), keep])
    await stop()
    throw new Error(`The node did not start; its logs are in ${keep}`, { cause: error })
  }
}

/**
 * Starts a node, which joins the control plane. Of two that start at once the second waits, and is told that there is one: it would clean up after itself, and take
 * the first one with it.
 * @throws Error with the reason, when none can run here
 */
export const startNode = async (options: NodeOptions): Promise<RealNode> => {
  const dir = options.dir ?? nodeDir()
  await assertAble(dir)
  await mkdir(path.dirname(dir), { recursive: true })
  const onWait = (): void => options.say?.('another process starts a node; waiting')
  return withBuildLock(`${dir}.lock`, onWait, () => startAlone(dir, options))
}
