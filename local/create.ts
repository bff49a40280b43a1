import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, open, readdir, rm } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../domain/errors.ts'
import type { SupervisorConfig } from '../domain/supervisor-protocol.ts'
import type { SandboxSpec } from '../sandbox/driver.ts'
import { type Exit, exitNow } from './evidence.ts'
import { oomKillsSoFar } from './memory.ts'
import { type Process, sandboxVariable, startTimeOf } from './processes.ts'
import { COMPILE_CACHE_DIR, dirOf, discardDir, LOG_FILE, readRecord, recordOf, writeRecord } from './records.ts'
import { endProcesses } from './remove.ts'

export type SpawnOptions = {
  root: string
  /** Address on which supervisors listen. */
  listen: string
  /** Entry point of the supervisor. */
  supervisorPath: string
  /** `PATH` of sandboxes. */
  searchPath: string
  /** Absolute folder of a harness; undefined if there is none of that id. */
  harnessDir: (id: string) => string | undefined
  onExit: (name: string, exit: Exit) => void
}

/** A supervisor moves bytes and holds little: there are many of them, so their heaps are kept small. */
const NODE_FLAGS = ['--max-old-space-size=192', '--max-semi-space-size=2']

/** A creator needs milliseconds from the directory to the record. One that has needed longer is dead. */
const creatorTimeoutMs = 5_000
const creatorPollMs = 20

const isExisting = (error: unknown): boolean => Error.isError(error) && 'code' in error && error.code === 'EEXIST'

const configOf = (spec: SandboxSpec, dir: string, options: SpawnOptions): SupervisorConfig => {
  const harnessDir = options.harnessDir(spec.harnessId)
  if (harnessDir === undefined) throw new AppError('invalid', `there is no harness "${spec.harnessId}" here`)
  return {
    sandbox_id: spec.sandboxId,
    template_hash: spec.templateHash,
    purpose: spec.purpose,
    token: spec.token,
    listen: { host: options.listen, port: 0 },
    dir,
    harness: { id: spec.harnessId, dir: harnessDir },
    repo_url: spec.repoUrl,
    branch: spec.branch,
    setup_command: spec.setupCommand,
    env: spec.env,
  }
}

/** Detached, in a group of its own, with an environment of its own: the end of this process is not its end. */
const spawnSupervisor = async (spec: SandboxSpec, dir: string, options: SpawnOptions): Promise<Process> => {
  const config = configOf(spec, dir, options)
  await mkdir(path.join(dir, 'home'), { mode: 0o700 })
  await mkdir(path.join(dir, 'tmp'), { mode: 0o700 })
  await using log = await open(path.join(dir, LOG_FILE), 'a', 0o600)
  const child = spawn(process.execPath, [...NODE_FLAGS, options.supervisorPath], {
    cwd: dir,
    detached: true,
    stdio: ['pipe', log.fd, log.fd],
    env: {
      PATH: options.searchPath,
      HOME: path.join(dir, 'home'),
      TMPDIR: path.join(dir, 'tmp'),
      LANG: 'C.UTF-8',
      // Shared by all sandboxes: half the start and two thirds of the memory of a supervisor. No harness gets it.
      NODE_COMPILE_CACHE: path.join(options.root, COMPILE_CACHE_DIR),
      ...Object.fromEntries([sandboxVariable(spec.sandboxId).split('=')]),
    },
  })
  child.once('exit', (code, signal) => options.onExit(spec.name, exitNow(code, signal)))
  await once(child, 'spawn')
  const { pid } = child
  if (pid === undefined) throw new Error('the supervisor has no pid')
  // It may have ended already; then this is the start time of its zombie, or of nothing.
  const supervisor = { pid, startTime: startTimeOf(pid) ?? 'ended' }
  child.stdin?.on('error', () => undefined)
  child.stdin?.end(JSON.stringify(config))
  child.unref()
  return supervisor
}

/** @returns true once somebody else's record is there, false if there is none in time */
const awaitOtherCreator = async (root: string, name: string): Promise<boolean> => {
  for (let waitedMs = 0; waitedMs < creatorTimeoutMs; waitedMs += creatorPollMs) {
    if ((await readRecord(root, name)) !== null) return true
    await sleep(creatorPollMs)
  }
  return false
}

/** @returns whether this call made the directory */
const makeDir = async (dir: string): Promise<boolean> => {
  try {
    await mkdir(dir, { mode: 0o700 })
    return true
  } catch (error) {
    if (isExisting(error)) return false
    throw error
  }
}

const TAKEOVER = 'takeover-'

/** Ends and deletes what a dead creator may have left: a supervisor without a record, half a clone. */
const cleanUp = async (spec: SandboxSpec, dir: string): Promise<void> => {
  await endProcesses(sandboxVariable(spec.sandboxId), null)
  for (const entry of await readdir(dir))
    if (!entry.startsWith(TAKEOVER)) await rm(path.join(dir, entry), { recursive: true, force: true })
}

/**
 * The right to start a sandbox goes to one at a time: to who makes its directory; if there is no record in time, to who makes `takeover-1` in it; and so
 * on.
 * @returns false if somebody else has started it
 */
const winCreation = async (spec: SandboxSpec, root: string, dir: string): Promise<boolean> => {
  if (await makeDir(dir)) return true
  for (let takeover = 1; ; takeover++) {
    if (await awaitOtherCreator(root, spec.name)) return false
    if (!(await makeDir(path.join(dir, `${TAKEOVER}${takeover}`)))) continue
    await cleanUp(spec, dir)
    return true
  }
}

/** Starts a sandbox, or finds it started. The record is written last, so whoever sees it sees a started sandbox. */
export const createSandbox = async (spec: SandboxSpec, options: SpawnOptions): Promise<void> => {
  const { root } = options
  const dir = dirOf(root, spec.name)
  await mkdir(root, { recursive: true, mode: 0o700 })
  if (!(await winCreation(spec, root, dir))) return
  let supervisor: Process | null = null
  try {
    supervisor = await spawnSupervisor(spec, dir, options)
    await writeRecord(root, recordOf(spec, supervisor, oomKillsSoFar()))
  } catch (error) {
    // Also when it was removed meanwhile. Nothing is left: the next call begins anew.
    await endProcesses(sandboxVariable(spec.sandboxId), supervisor)
    await discardDir(root, spec.name)
    throw error
  }
}
