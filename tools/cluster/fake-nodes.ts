import { randomBytes } from 'node:crypto'
import { mkdir, open, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../dev/ports.ts'
import { endProcess, type ProcessRecord, startProcess } from '../dev/process.ts'
import { buildBinaries } from './binaries.ts'
import { createAuthority } from './certificates.ts'
import { FAKE_RUN, fakeNode, kwokArgs, LEASE_S } from './components.ts'
import { connectKube, readAccess } from './kube.ts'
import { containerLog, FAST, kwokFile } from './stages.ts'

/** Nodes without machines in a cluster that others use, too: pods of others do not come to them, and pods of ours must ask for them. */
export type FakeNodes = {
  nodeSelector: Record<string, string>
  tolerations: { key: string; operator: 'Equal'; value: string; effect: 'NoSchedule' }[]
  stop(): Promise<void>
}

export type FakeNodesOptions = {
  /** Of a user who may make nodes. */
  kubeconfig: string
  /** For logs and certificates; removed at the end. */
  dir: string
  nodes: number
  say: (text: string) => void
  onSpawn?: (record: ProcessRecord) => void
}

const READY_TIMEOUT_MS = 30_000
const STOP_TIMEOUT_MS = 5_000

type NodeList = {
  items: { metadata: { name: string }; status?: { conditions?: { type: string; status: string }[] } }[]
}

const writeFiles = async (dir: string): Promise<Record<'config' | 'certificate' | 'key', string>> => {
  await mkdir(dir, { recursive: true, mode: 0o700 })
  const { certificate, key } = createAuthority('lap-fake-nodes').issue({ commonName: 'kubelet' }, ['127.0.0.1'])
  const files = {
    config: path.join(dir, 'kwok.yaml'),
    certificate: path.join(dir, 'kubelet.crt'),
    key: path.join(dir, 'kubelet.key'),
  }
  const log = path.join(dir, 'container.log')
  await Promise.all([
    writeFile(log, containerLog()),
    writeFile(files.config, kwokFile(FAST, log)),
    writeFile(files.certificate, certificate),
    writeFile(files.key, key, { mode: 0o600 }),
  ])
  return files
}

export const startFakeNodes = async (options: FakeNodesOptions): Promise<FakeNodes> => {
  const { kubeconfig, dir, nodes, say } = options
  const binaries = await buildBinaries(['kwok'], say)
  const run = randomBytes(4).toString('hex')
  const files = await writeFiles(dir)
  const kube = connectKube(await readAccess(kubeconfig))
  const args = kwokArgs({ ...files, kubeconfig, managed: run, port: await freePort(), leaseS: LEASE_S })
  const log = await open(path.join(dir, 'kwok.log'), 'a')
  const { child, record } = await startProcess(path.join(binaries, 'kwok'), args, {
    cwd: dir,
    detached: true,
    stdio: ['ignore', log.fd, log.fd],
    ...(options.onSpawn === undefined ? {} : { onSpawn: options.onSpawn }),
  })
  child.unref()
  await log.close()
  const ours = (): Promise<NodeList> =>
    kube.get<NodeList>(`/api/v1/nodes?labelSelector=${encodeURIComponent(`${FAKE_RUN}=${run}`)}`)
  const stop = async (): Promise<void> => {
    const { items } = await ours()
    await Promise.all(items.map(({ metadata }) => kube.remove(`/api/v1/nodes/${metadata.name}`)))
    await endProcess(record, 'SIGTERM', STOP_TIMEOUT_MS)
    await kube[Symbol.asyncDispose]()
    await rm(dir, { recursive: true, force: true })
  }
  await Promise.all(Array.from({ length: nodes }, (_, index) => kube.create('/api/v1/nodes', fakeNode(index, run))))
  for (const deadline = Date.now() + READY_TIMEOUT_MS; ; await sleep(50)) {
    const { items } = await ours()
    const ready = items.filter(({ status }) =>
      status?.conditions?.some((one) => one.type === 'Ready' && one.status === 'True'),
    )
    if (ready.length >= nodes) break
    if (Date.now() < deadline) continue
    await stop()
    throw new Error(`The fake nodes are not ready after ${READY_TIMEOUT_MS / 1_000} s`)
  }
  const toleration = { key: FAKE_RUN, operator: 'Equal', value: run, effect: 'NoSchedule' } as const
  return { nodeSelector: { [FAKE_RUN]: run }, tolerations: [toleration], stop }
}
