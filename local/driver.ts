import path from 'node:path'
import pLimit from 'p-limit'
import { AppError } from '../domain/errors.ts'
import type { ListedSandbox, SandboxDriver } from '../sandbox/driver.ts'
import { linesSince } from '../sandbox/log-lines.ts'
import { createSandbox } from './create.ts'
import { type Exit, inspectSandbox, lossOf } from './evidence.ts'
import type { HarnessPackages } from './harness-packages.ts'
import { watchLost } from './lost.ts'
import { isAlive } from './processes.ts'
import { createdAt, deleteLeftovers, emptyRemoved, idIn, listNames, readLog, readRecord } from './records.ts'
import { awaitReady } from './ready.ts'
import { removeSandbox } from './remove.ts'

export type LocalDriverOptions = {
  /** Directory of all sandboxes, absolute. */
  dir: string
  /** Host under which sandboxes are reached. */
  host: string
  /** Address on which they listen. */
  listen: string
  /** `PATH` of sandboxes: git, a shell and whatever tools should be found. */
  searchPath: string
  /** Absolute folder of a harness; undefined if there is none of that id. */
  harnessDir: (id: string) => string | undefined
  /** Makes sure that the packages of a harness are there. Without it they are. */
  ensurePackages?: HarnessPackages['ensure']
}

export type LocalDriver = SandboxDriver & {
  /** Ends and deletes every sandbox of the directory, whoever made it. */
  removeAll(): Promise<void>
}

const supervisorPath = path.join(import.meta.dirname, '../bin/supervisor.ts')
/** Ending sandboxes is mostly waiting; looking for their processes is not. */
const removalsAtOnce = 8

/** Nobody looks at marks here, and nobody else has made any. */
const marks = { isMarked: true, sessionId: null, ours: true }

/** A directory without a record is one in the making, or what a dead creator left: listed too, so that somebody removes it. */
const listOne = async (root: string, name: string): Promise<ListedSandbox[]> => {
  const record = await readRecord(root, name)
  if (record !== null)
    return [
      {
        name,
        sandboxId: record.sandbox_id,
        agentId: record.agent_id,
        alive: isAlive(record.supervisor),
        createdAt: new Date(record.created_at),
        ...marks,
      },
    ]
  const created = await createdAt(root, name)
  return created === null
    ? []
    : [{ name, sandboxId: idIn(name), agentId: '', alive: false, createdAt: created, ...marks }]
}

/**
 * Sandboxes as processes of this machine: each a supervisor in a process group and a directory of its own, detached, so that it outlives whoever
 * made it; any process with the same directory sees, uses and ends it. No isolation: an agent can do what the user of this process can.
 */
export const createLocalDriver = (options: LocalDriverOptions): LocalDriver => {
  const root = path.resolve(options.dir)
  const exits = new Map<string, Exit>()
  const listeners = new Set<(name: string) => void>()
  const removals = new Map<string, Promise<void>>()

  const onExit = (name: string, exit: Exit): void => {
    exits.set(name, exit)
    for (const listener of listeners) listener(name)
  }
  const exitOf = (name: string): Exit | undefined => exits.get(name)

  const remove = (name: string): Promise<void> => {
    const running = removals.get(name)
    if (running !== undefined) return running
    const removal = removeSandbox(root, name).finally(() => {
      removals.delete(name)
      exits.delete(name)
    })
    removals.set(name, removal)
    return removal
  }

  return {
    kind: 'local',
    async create(spec, onProgress) {
      const harness = options.harnessDir(spec.harnessId)
      if (harness !== undefined) await options.ensurePackages?.(harness, () => onProgress?.('installing_harness'))
      await createSandbox(spec, { ...options, root, supervisorPath, onExit })
    },
    ready: (name, wait) => awaitReady({ root, host: options.host, exitOf }, name, wait),
    markReady: null,
    markClaimed: null,
    remove,
    async list() {
      await deleteLeftovers(root)
      return (await Promise.all((await listNames(root)).map((name) => listOne(root, name)))).flat()
    },
    inspect: (name) => inspectSandbox(root, name, exitOf(name)),
    lossOf: (name) => lossOf(root, name, exitOf(name)),
    async logs(name, { tailLines, sinceSeconds }) {
      const lines = await readLog(root, name, sinceSeconds === undefined ? tailLines : Number.MAX_SAFE_INTEGER)
      if (lines === null) throw new AppError('not_found', `there is no log of sandbox ${name}`)
      if (sinceSeconds === undefined) return lines
      const recent = linesSince(lines, Date.now() - sinceSeconds * 1_000)
      return tailLines === 0 ? [] : recent.slice(-tailLines)
    },
    watchLost: (onLost, signal) =>
      watchLost(root, {
        onLost,
        signal,
        onExit: (listener) => {
          listeners.add(listener)
          return () => listeners.delete(listener)
        },
      }),
    async removeAll() {
      const limit = pLimit(removalsAtOnce)
      await Promise.all((await listNames(root)).map((name) => limit(() => remove(name))))
      await emptyRemoved(root)
    },
  }
}
