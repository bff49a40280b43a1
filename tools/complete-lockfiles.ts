/**
 * Completes package-lock.json files: `node tools/complete-lockfiles.ts`, after each change of dependencies.
 *
 * A package with native code names one optional package per platform. A registry that does not serve all of them leaves gaps in the lockfile, and
 * `npm ci` then refuses it everywhere. What belongs into a gap is known without the registry, but for the checksum: the version is in the package that
 * asks for it, and the platform is in the name.
 */
import { readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'

export const LOCKED_FOLDERS = [
  '.',
  'harness/claude-agent-sdk',
  'harness/claude-code',
  'harness/codex',
  'harness/opencode',
  'harness/qwen-code',
  'supervisor',
]

type Entry = {
  version?: string
  dev?: boolean
  devOptional?: boolean
  optional?: boolean
  license?: string
  cpu?: string[]
  os?: string[]
  libc?: string[]
  optionalDependencies?: Record<string, string>
}
export type Lockfile = { packages: Record<string, Entry> }

/** Words of the names of packages, as npm calls what they mean. */
const OS: Record<string, string> = {
  ...Object.fromEntries(['darwin', 'linux', 'win32', 'android', 'freebsd', 'openharmony'].map((os) => [os, os])),
  windows: 'win32',
}
const CPUS = ['x64', 'arm64', 'arm', 'ia32', 'ppc64', 'riscv64', 's390x', 'loong64', 'wasm32']
const LIBC: Record<string, string> = { gnu: 'glibc', gnueabihf: 'glibc', musl: 'musl', musleabihf: 'musl' }

const firstOf = (table: Record<string, string>, words: string[]): string | undefined =>
  words.map((word) => table[word]).find((found) => found !== undefined)

const platformOf = (name: string): Pick<Entry, 'cpu' | 'os' | 'libc'> => {
  const words = name.split(/[-/]/)
  const os = firstOf(OS, words)
  const cpu = words.find((word) => CPUS.includes(word))
  const libc = os === 'linux' ? firstOf(LIBC, words) : undefined
  if (cpu === undefined || (os === undefined && cpu !== 'wasm32')) throw new Error(`Which platform is ${name} for?`)
  return {
    cpu: [cpu],
    ...(libc === undefined ? {} : { libc: [libc] }),
    ...(os === undefined ? {} : { os: [os] }),
  }
}

/** Whether the lockfile has it where Node would find it: beside the package, or in a `node_modules` above. */
const isLocked = (packages: Lockfile['packages'], from: string, name: string): boolean => {
  for (let at = from; ; at = at.slice(0, Math.max(at.lastIndexOf('/node_modules/'), 0))) {
    if (packages[`${at}${at === '' ? '' : '/'}node_modules/${name}`] !== undefined) return true
    if (at === '') return false
  }
}

/** The entries that a lockfile misses, by their place in it. */
export const gapsOf = ({ packages }: Lockfile): Record<string, Entry> => {
  const gaps: Record<string, Entry> = {}
  for (const [from, { optionalDependencies = {}, dev, devOptional, license }] of Object.entries(packages))
    for (const [name, version] of Object.entries(optionalDependencies)) {
      if (isLocked(packages, from, name)) continue
      if (!/^\d+\.\d+\.\d+\S*$/.test(version)) throw new Error(`${from} wants ${name} ${version}: not one version`)
      gaps[`node_modules/${name}`] = {
        version,
        ...(dev === undefined ? {} : { dev }),
        ...(devOptional === undefined ? {} : { devOptional }),
        ...(license === undefined ? {} : { license }),
        optional: true,
        ...platformOf(name),
      }
    }
  return gaps
}

const complete = async (folder: string): Promise<void> => {
  const file = path.join(import.meta.dirname, '..', folder, 'package-lock.json')
  const lock = JSON.parse(await readFile(file, 'utf8')) as Lockfile
  const gaps = gapsOf(lock)
  const packages = Object.fromEntries(
    Object.entries({ ...lock.packages, ...gaps }).toSorted(([a], [b]) => a.localeCompare(b, 'en')),
  )
  await writeFile(file, `${JSON.stringify({ ...lock, packages }, null, 2)}\n`)
  console.log(`${path.join(folder, 'package-lock.json')}: ${Object.keys(gaps).length} entries added`)
}

if (import.meta.main) for (const folder of LOCKED_FOLDERS) await complete(folder)
