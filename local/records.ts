import { randomUUID } from 'node:crypto'
import { chmod, mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import type { SandboxPurpose } from '../domain/sandbox.ts'
import type { SupervisorStateFile } from '../domain/supervisor-protocol.ts'
import type { SandboxSpec } from '../sandbox/driver.ts'
import type { Process } from './processes.ts'

/**
 * What the driver keeps of a sandbox, in `<dir>/<name>/sandbox.json`, so that any process finds it again. No token, no value of the environment,
 * no set-up command: they may hold secrets.
 */
export type SandboxRecord = {
  name: string
  sandbox_id: string
  agent_id: string
  template_hash: string
  purpose: SandboxPurpose
  harness_id: string
  branch: string
  env_names: string[]
  supervisor: Process
  created_at: string
  /** It is being removed on purpose: its end is no loss. */
  removing: boolean
  /** Kills for want of memory in this machine's or container's memory group when it started. */
  oom_kills: number | null
}

const RECORD_FILE = 'sandbox.json'
export const STATE_FILE = 'state.json'
export const LOG_FILE = 'supervisor.log'
const REMOVED_DIR = '.removed'
/** Compiled code of supervisors, shared by all. */
export const COMPILE_CACHE_DIR = '.compile-cache'

/** Names are DNS labels; anything else could lead out of the directory. */
const isName = (name: string): boolean => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(name)

export const dirOf = (root: string, name: string): string => {
  if (!isName(name)) throw new TypeError(`not a sandbox name: ${JSON.stringify(name)}`)
  return path.join(root, name)
}

const isMissing = (error: unknown): boolean =>
  Error.isError(error) && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')

/** Files of this kind are replaced whole, so what is read is whole; null if there is none. */
const readJson = async (file: string): Promise<unknown> => {
  try {
    return JSON.parse(await readFile(file, 'utf8'))
  } catch (error) {
    if (isMissing(error)) return null
    throw error
  }
}

export const readRecord = async (root: string, name: string): Promise<SandboxRecord | null> =>
  // Only this module writes the file.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  (await readJson(path.join(dirOf(root, name), RECORD_FILE))) as SandboxRecord | null

export const readState = async (root: string, name: string): Promise<SupervisorStateFile | null> =>
  // Only the supervisor writes the file, in this shape.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  (await readJson(path.join(dirOf(root, name), STATE_FILE))) as SupervisorStateFile | null

/** @throws ENOENT if the sandbox was removed meanwhile: a record never brings a directory back */
export const writeRecord = async (root: string, record: SandboxRecord): Promise<void> => {
  const file = path.join(dirOf(root, record.name), RECORD_FILE)
  const draft = `${file}.${randomUUID()}`
  await writeFile(draft, `${JSON.stringify(record, null, 2)}\n`, { mode: 0o600 })
  await rename(draft, file)
}

/** Changes a record if it is there. */
export const patchRecord = async (root: string, name: string, patch: Partial<SandboxRecord>): Promise<void> => {
  const record = await readRecord(root, name)
  if (record === null) return
  await writeRecord(root, { ...record, ...patch }).catch((error: unknown) => {
    if (!isMissing(error)) throw error
  })
}

export const recordOf = (spec: SandboxSpec, supervisor: Process, oomKills: number | null): SandboxRecord => ({
  name: spec.name,
  sandbox_id: spec.sandboxId,
  agent_id: spec.agentId,
  template_hash: spec.templateHash,
  purpose: spec.purpose,
  harness_id: spec.harnessId,
  branch: spec.branch,
  env_names: Object.keys(spec.env),
  supervisor,
  created_at: new Date().toISOString(),
  removing: false,
  oom_kills: oomKills,
})

/** `lap-<id>` → `<id>`, for a directory without a record. */
export const idIn = (name: string): string => name.replace(/^lap-/, '')

/** When a sandbox' directory was made; null if there is none. */
export const createdAt = async (root: string, name: string): Promise<Date | null> => {
  try {
    return (await stat(dirOf(root, name))).birthtime
  } catch (error) {
    if (isMissing(error)) return null
    throw error
  }
}

/** Names of all directories that may be sandboxes. */
export const listNames = async (root: string): Promise<string[]> => {
  try {
    const entries = await readdir(root, { withFileTypes: true })
    return entries.flatMap((entry) => (entry.isDirectory() && isName(entry.name) ? [entry.name] : []))
  } catch (error) {
    if (isMissing(error)) return []
    throw error
  }
}

const unlockDirs = async (dir: string): Promise<void> => {
  await chmod(dir, 0o700)
  for (const entry of await readdir(dir, { withFileTypes: true }))
    if (entry.isDirectory()) await unlockDirs(path.join(dir, entry.name))
}

/** Also directories that may not be written to, as tools make them (Go's module cache). */
const deleteTree = async (dir: string): Promise<void> => {
  const options = { recursive: true, force: true, maxRetries: 5, retryDelay: 50 }
  try {
    await rm(dir, options)
  } catch (error) {
    if (!Error.isError(error) || !('code' in error) || (error.code !== 'EACCES' && error.code !== 'EPERM')) throw error
    await unlockDirs(dir)
    await rm(dir, options)
  }
}

/**
 * Takes a sandbox' directory away, whole and at once, then deletes it at leisure.
 * @returns false if there was none: somebody else was first
 */
export const discardDir = async (root: string, name: string): Promise<boolean> => {
  const removed = path.join(root, REMOVED_DIR)
  await mkdir(removed, { recursive: true, mode: 0o700 })
  const target = path.join(removed, `${name}-${randomUUID()}`)
  try {
    await rename(dirOf(root, name), target)
  } catch (error) {
    if (isMissing(error)) return false
    throw error
  }
  await deleteTree(target)
  return true
}

/** Deletes what a removal that was cut short left behind. */
export const emptyRemoved = (root: string): Promise<void> => deleteTree(path.join(root, REMOVED_DIR))

/** Longer than any removal takes. */
const leftoverAgeMs = 10 * 60_000

/** The same while others are removing: only what has been there for long. What cannot be deleted is tried again by the next call. */
export const deleteLeftovers = async (root: string): Promise<void> => {
  const removed = path.join(root, REMOVED_DIR)
  const names = await readdir(removed).catch(() => [])
  for (const name of names) {
    const found = await stat(path.join(removed, name)).catch(() => null)
    if (found === null || Date.now() - found.ctimeMs < leftoverAgeMs) continue
    await deleteTree(path.join(removed, name)).catch(() => {})
  }
}

const logMaxBytes = 1024 * 1024

/** Last lines of a sandbox' log, oldest first; null if there is no log. At most 1 MB of it is read. */
export const readLog = async (root: string, name: string, tailLines: number): Promise<string[] | null> => {
  let file
  try {
    file = await open(path.join(dirOf(root, name), LOG_FILE))
  } catch (error) {
    if (isMissing(error)) return null
    throw error
  }
  try {
    const { size } = await file.stat()
    const length = Math.min(size, logMaxBytes)
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, size - length)
    const lines = buffer.toString('utf8', 0, bytesRead).split('\n')
    if (size > length) lines.shift()
    if (lines.at(-1) === '') lines.pop()
    return tailLines === 0 ? [] : lines.slice(-tailLines)
  } finally {
    await file.close()
  }
}
