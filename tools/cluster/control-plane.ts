import { existsSync, renameSync, writeFileSync } from 'node:fs'
import { mkdir, open, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { freePort } from '../dev/ports.ts'
import { endProcess, isRunning, type ProcessRecord, startProcess } from '../dev/process.ts'
import { buildBinaries, CONTROL_PLANE } from './binaries.ts'
import { API_SERVICE_ADDRESS, type ComponentName, componentsOf, fakeNode, LEASE_S, type Ports } from './components.ts'
import { kubeconfigOf, TESTERS_GROUP, type User, writeCredentials } from './credentials.ts'
import { connectKube, type Kube, kubeconfigText } from './kube.ts'
import { containerLog, FAST, kwokFile, type StageTimes } from './stages.ts'
import { until } from './until.ts'

const STOP_TIMEOUT_MS = 10_000

export type ClusterOptions = {
  /** Its state: keys, logs, etcd. Emptied at the start. */
  dir: string
  /** How many fake nodes. */
  nodes: number
  times?: StageTimes
  /** How long a node is believed without a word of it; 40. */
  leaseS?: number
  /** Makes what controllers have to know from their start: the garbage collector looks for new kinds only every 30 s. */
  defineKinds?: (kube: Kube) => Promise<unknown>
  say?: (text: string) => void
  /** Told of each process as soon as it exists, so that somebody can end it when this process is gone. */
  onSpawn?: (record: ProcessRecord) => void
}

/** A cluster that is here: started by us, or the one of KUBECONFIG. */
export type Cluster = AsyncDisposable & {
  kubeconfig: Record<'admin' | 'tester' | 'controller', string>
  /** What only a cluster of ours can be put through. */
  own: OwnCluster | null
  stop(): Promise<void>
}

export type OwnCluster = {
  dir: string
  apiPort: number
  /** A kubeconfig by way of another port of the loopback, such as a proxy's. @returns its file */
  kubeconfigVia(user: 'admin' | 'tester' | 'controller', port: number): Promise<string>
  /** At once, as when its machine is lost. */
  killApiServer(): Promise<void>
  /** Resolves when it is ready; controllers and scheduler are started anew with it. */
  restartApiServer(): Promise<void>
  /** Every fake node stops renewing its lease. */
  killNodes(): Promise<void>
  restartNodes(): Promise<void>
}

/** What speaks to the API server. */
const CLIENTS = ['controllerManager', 'scheduler', 'kwok'] as const

type NamedRecord = ProcessRecord & { name: string }

const recordsFile = (dir: string): string => path.join(dir, 'processes.json')

/** On disk before anything else happens, so that no process is left unrecorded however this one ends. */
const writeRecords = (dir: string, records: NamedRecord[]): void => {
  writeFileSync(`${recordsFile(dir)}.new`, `${JSON.stringify(records, null, 2)}\n`, { mode: 0o600 })
  renameSync(`${recordsFile(dir)}.new`, recordsFile(dir))
}

/** The processes of the cluster in this folder that run now. */
export const runningIn = async (dir: string): Promise<NamedRecord[]> => {
  const text = await readFile(recordsFile(dir), 'utf8').catch(() => '[]')
  return (JSON.parse(text) as NamedRecord[]).filter(isRunning)
}

const endProcessesIn = async (dir: string): Promise<string[]> => {
  const running = await runningIn(dir)
  for (const record of running.toReversed()) await endProcess(record, 'SIGTERM', STOP_TIMEOUT_MS)
  return running.map(({ name }) => name)
}

/** Ends exactly the processes recorded in the folder, the last started first, and removes the folder if a cluster was in it. @returns their names */
export const endCluster = async (dir: string): Promise<string[]> => {
  const names = await endProcessesIn(dir)
  if (existsSync(recordsFile(dir))) await rm(dir, { recursive: true })
  return names
}

/** Only a folder of a cluster is emptied, never one that was named by mistake. */
const prepareDir = async (dir: string): Promise<void> => {
  await endCluster(dir)
  await mkdir(dir, { recursive: true, mode: 0o700 })
  if ((await readdir(dir)).length > 0) throw new Error(`${dir} holds something else than a cluster`)
  writeRecords(dir, [])
  await mkdir(path.join(dir, 'logs'))
}

const choosePorts = async (): Promise<Ports> => {
  const chosen = new Set<number>()
  const choose = async (): Promise<number> => {
    for (;;) {
      const port = await freePort()
      if (chosen.has(port)) continue
      chosen.add(port)
      return port
    }
  }
  return {
    etcd: await choose(),
    etcdPeer: await choose(),
    apiServer: await choose(),
    controllerManager: await choose(),
    scheduler: await choose(),
    kwok: await choose(),
  }
}

type Components = {
  start(name: ComponentName): Promise<void>
  kill(name: ComponentName): Promise<void>
  assertRuns(...names: ComponentName[]): void
}

const manageComponents = (options: ClusterOptions, binaries: string, ports: Ports): Components => {
  const { dir } = options
  const { leaseS = LEASE_S } = options
  const components = componentsOf(dir, ports, { stages: path.join(dir, 'stages.yaml'), leaseS })
  const records = new Map<ComponentName, ProcessRecord>()
  const write = (): void =>
    writeRecords(
      dir,
      [...records].map(([name, record]) => ({ name, ...record })),
    )
  return {
    start: async (name) => {
      const { binary, args } = components[name]
      const log = await open(path.join(dir, 'logs', `${binary}.log`), 'a')
      await startProcess(path.join(binaries, binary), args, {
        cwd: dir,
        detached: true,
        stdio: ['ignore', log.fd, log.fd],
        onSpawn: (record) => {
          records.set(name, record)
          write()
          options.onSpawn?.(record)
        },
      }).then(({ child }) => child.unref())
      await log.close()
    },
    kill: async (name) => {
      const record = records.get(name)
      if (record !== undefined) await endProcess(record, 'SIGKILL', STOP_TIMEOUT_MS)
    },
    assertRuns: (...names) => {
      for (const name of names) {
        const record = records.get(name)
        if (record === undefined || !isRunning(record))
          throw new Error(`${components[name].binary} has ended; see ${dir}/logs/${components[name].binary}.log`)
      }
    },
  }
}

type Condition = { type: string; status: string }
type NodeList = { items: { status: { conditions?: Condition[] } }[] }

const areNodesReady = async (kube: Kube, count: number): Promise<boolean> => {
  const { items } = await kube.get<NodeList>('/api/v1/nodes')
  const isReady = ({ type, status }: Condition): boolean => type === 'Ready' && status === 'True'
  return items.filter((node) => node.status.conditions?.some(isReady)).length >= count
}

const prepare = async (kube: Kube, nodes: number, assertRuns: () => void): Promise<void> => {
  const binding = {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: TESTERS_GROUP },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' },
    subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: TESTERS_GROUP }],
  }
  await kube.create('/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', binding)
  await Promise.all(Array.from({ length: nodes }, (_, index) => kube.create('/api/v1/nodes', fakeNode(index))))
  await until('Every fake node is ready', () => areNodesReady(kube, nodes), assertRuns)
  // Made by the controller manager; without it no pod is admitted.
  const hasAccount = async (): Promise<boolean> => {
    await kube.get('/api/v1/namespaces/default/serviceaccounts/default')
    return true
  }
  await until('There is a default service account', hasAccount, assertRuns)
}

/** Starts a control plane with fake nodes on the loopback, on ports of its own. Builds it first where it is not built yet. */
export const startOwnCluster = async (options: ClusterOptions): Promise<Cluster & { own: OwnCluster }> => {
  const { dir, nodes, times = FAST, say = () => {} } = options
  const binaries = await buildBinaries(CONTROL_PLANE, say)
  await prepareDir(dir)
  const ports = await choosePorts()
  const server = `https://127.0.0.1:${ports.apiServer}`
  const { ca, tokens } = await writeCredentials(dir, server, [API_SERVICE_ADDRESS])
  const logFile = path.join(dir, 'container.log')
  await writeFile(logFile, containerLog())
  await writeFile(path.join(dir, 'stages.yaml'), kwokFile(times, logFile))
  const components = manageComponents(options, binaries, ports)
  const kube = connectKube({ server, ca, token: tokens.admin })
  const apiReady = (): Promise<void> =>
    until(
      'The API server is ready',
      async () => (await kube.text('/readyz')) === 'ok',
      () => components.assertRuns('etcd', 'apiServer'),
    )
  const stop = async (): Promise<void> => {
    await kube[Symbol.asyncDispose]()
    await endCluster(dir)
  }
  try {
    await components.start('etcd')
    await components.start('apiServer')
    await apiReady()
    await options.defineKinds?.(kube)
    for (const name of CLIENTS) await components.start(name)
    await prepare(kube, nodes, () => components.assertRuns(...CLIENTS))
  } catch (error) {
    await kube[Symbol.asyncDispose]()
    // The logs stay, to be read.
    await endProcessesIn(dir)
    throw error
  }
  const own: OwnCluster = {
    dir,
    apiPort: ports.apiServer,
    kubeconfigVia: async (user, port) => {
      const file = path.join(dir, `${user}-via-${port}.kubeconfig`)
      const text = kubeconfigText({ server: `https://127.0.0.1:${port}`, ca, token: tokens[user] })
      await writeFile(file, text, { mode: 0o600 })
      return file
    },
    killApiServer: () => components.kill('apiServer'),
    restartApiServer: async () => {
      await components.start('apiServer')
      await apiReady()
      // What has lost its lease ends and is started anew; what waits, waits up to 30 s before it asks again.
      for (const name of ['controllerManager', 'scheduler'] as const) {
        await components.kill(name)
        await components.start(name)
      }
    },
    killNodes: () => components.kill('kwok'),
    restartNodes: () => components.start('kwok'),
  }
  const users = ['admin', 'tester', 'controller'] as const satisfies User[]
  const kubeconfig = Object.fromEntries(users.map((user) => [user, kubeconfigOf(dir, user)])) as Cluster['kubeconfig']
  return { kubeconfig, own, stop, [Symbol.asyncDispose]: stop }
}
