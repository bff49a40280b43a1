import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { access, mkdir, readFile, rename, stat } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { cacheDir, withBuildLock } from '../dev/cache.ts'

/**
 * Kubernetes from source: the Go modules under `go/` pin every version and checksum, so that the same binaries come out on every machine with Go. KWOK stands in a
 * module of its own because it needs newer Kubernetes libraries, as does Helm, whose binary is also kept apart: another version of it must not build a cluster anew. Nor must one of
 * the S3 server.
 */
const MODULES_DIR = fileURLToPath(new URL('go/', import.meta.url))
const CLUSTER_MODULES = ['kubernetes', 'kwok'] as const
const HELM_MODULES = ['helm'] as const
const S3_MODULES = ['s3'] as const
type Module = (typeof CLUSTER_MODULES | typeof HELM_MODULES | typeof S3_MODULES)[number]

const CNI = 'github.com/containernetworking/plugins/plugins'
const PACKAGES: Record<string, { module: Module; package: string }> = {
  etcd: { module: 'kubernetes', package: 'go.etcd.io/etcd/server/v3' },
  kwok: { module: 'kwok', package: 'sigs.k8s.io/kwok/cmd/kwok' },
  helm: { module: 'helm', package: 'helm.sh/helm/v4/cmd/helm' },
  versitygw: { module: 's3', package: 'github.com/versity/versitygw/cmd/versitygw' },
  bridge: { module: 'kubernetes', package: `${CNI}/main/bridge` },
  loopback: { module: 'kubernetes', package: `${CNI}/main/loopback` },
  'host-local': { module: 'kubernetes', package: `${CNI}/ipam/host-local` },
  portmap: { module: 'kubernetes', package: `${CNI}/meta/portmap` },
}
for (const name of ['kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kubectl', 'kubelet', 'kube-proxy'])
  PACKAGES[name] = { module: 'kubernetes', package: `k8s.io/kubernetes/cmd/${name}` }

export const CONTROL_PLANE = ['etcd', 'kube-apiserver', 'kube-controller-manager', 'kube-scheduler', 'kubectl', 'kwok']
/** What a real node needs beside containerd and runc, which come from the system. */
export const NODE = ['kubelet', 'kube-proxy', 'bridge', 'loopback', 'host-local', 'portmap']

/** Named after the checksums of everything that goes in. */
const dirOf = async (modules: readonly Module[]): Promise<string> => {
  const hash = createHash('sha256')
  for (const module of modules)
    for (const file of ['go.mod', 'go.sum']) hash.update(await readFile(path.join(MODULES_DIR, module, file)))
  return path.join(cacheDir(), 'cluster', hash.digest('hex').slice(0, 16))
}

export const binariesDir = (): Promise<string> => dirOf(CLUSTER_MODULES)

const isExecutable = async (file: string): Promise<boolean> => {
  try {
    await access(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}

export const findGo = async (): Promise<string> => {
  const folders = (process.env['PATH'] ?? '').split(path.delimiter)
  if (process.env['GOROOT']) folders.push(path.join(process.env['GOROOT'], 'bin'))
  for (const folder of [...folders, '/usr/local/go/bin', '/usr/lib/go/bin']) {
    const file = path.join(folder, 'go')
    if (folder !== '' && (await isExecutable(file))) return file
  }
  throw new Error(
    'Kubernetes is built from source for these tests, and there is no Go to build it with.\n' +
      'Install Go 1.26 or newer (https://go.dev/dl), or name a cluster that runs: KUBECONFIG=…',
  )
}

const missingIn = async (dir: string, names: string[]): Promise<string[]> => {
  const missing: string[] = []
  for (const name of names) if (!(await isExecutable(path.join(dir, name)))) missing.push(name)
  return missing
}

/** Without a version of its own a server calls itself v0.0.0 and takes features for those of that version. */
const versionFlags = async (): Promise<string> => {
  const pinned = await readFile(path.join(MODULES_DIR, 'kubernetes', 'go.mod'), 'utf8')
  const [, version, minor] = /k8s\.io\/kubernetes (v1\.(\d+)\.\d+)/.exec(pinned) ?? []
  if (version === undefined) throw new Error(`No version of Kubernetes in ${MODULES_DIR}kubernetes/go.mod`)
  const values = {
    gitVersion: version,
    gitMajor: '1',
    gitMinor: minor,
    gitTreeState: 'clean',
    gitCommit: '0'.repeat(40),
    buildDate: '1970-01-01T00:00:00Z',
  }
  return Object.entries(values)
    .map(([key, value]) => `-X k8s.io/component-base/version.${key}=${value}`)
    .join(' ')
}

const goBuild = async (go: string, name: string, output: string): Promise<void> => {
  const from = PACKAGES[name]
  if (from === undefined)
    throw new Error(`${name} is none of the binaries: ${Object.keys(PACKAGES).toSorted().join(', ')}`)
  const flags = from.module === 'kubernetes' ? ` ${await versionFlags()}` : ''
  const child = spawn(go, ['build', '-trimpath', '-ldflags', `-s -w${flags}`, '-o', output, from.package], {
    cwd: path.join(MODULES_DIR, from.module),
    env: { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-mod=readonly -buildvcs=false', GOWORK: 'off' },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let errors = ''
  child.stderr.on('data', (chunk) => (errors = (errors + String(chunk)).slice(-4_000)))
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  if (code !== 0) throw new Error(`go build ${from.package} ended with ${code}:\n${errors.trim()}`)
}

/** Builds what is not there yet; what an earlier run got done is kept. */
const buildInto = async (dir: string, names: string[], say: (text: string) => void): Promise<string> => {
  if ((await missingIn(dir, names)).length === 0) return dir
  const go = await findGo()
  await mkdir(dir, { recursive: true })
  const onWait = (): void => say('another process builds them already; waiting')
  await withBuildLock(path.join(dir, 'building.json'), onWait, async () => {
    const missing = await missingIn(dir, names)
    for (const [index, name] of missing.entries()) {
      const startedAt = Date.now()
      const draft = path.join(dir, `${name}.new`)
      await goBuild(go, name, draft)
      await rename(draft, path.join(dir, name))
      const { size } = await stat(path.join(dir, name))
      const seconds = ((Date.now() - startedAt) / 1_000).toFixed(1)
      say(
        `${index + 1}/${missing.length} ${name.padEnd(24)} ${seconds.padStart(6)} s ${(size / 2 ** 20).toFixed(0).padStart(4)} MiB`,
      )
    }
  })
  return dir
}

/** @returns the folder of the binaries */
export const buildBinaries = async (names: string[], say: (text: string) => void): Promise<string> =>
  buildInto(await dirOf(CLUSTER_MODULES), names, say)

/** @returns the file of Helm */
export const buildHelm = async (say: (text: string) => void): Promise<string> =>
  path.join(await buildInto(await dirOf(HELM_MODULES), ['helm'], say), 'helm')

/** @returns the file of the S3 server */
export const buildS3Server = async (say: (text: string) => void): Promise<string> =>
  path.join(await buildInto(await dirOf(S3_MODULES), ['versitygw'], say), 'versitygw')
