import { isAlive } from './processes.ts'
import { listNames, readRecord, type SandboxRecord } from './records.ts'

const watchMs = 1_000

/**
 * One look over all sandboxes each second, and at once when `onExit` says so. A sandbox whose supervisor is dead is told of once. One whose directory is
 * gone, or which is being removed, was ended on purpose.
 */
const createLostWatch = (root: string, onLost: (name: string) => void) => {
  const told = new Set<string>()
  /** Pid and start time never change, so records are read once. */
  const records = new Map<string, SandboxRecord>()

  const lookAt = async (name: string): Promise<void> => {
    const known = records.get(name) ?? (await readRecord(root, name))
    if (known === null) return
    records.set(name, known)
    if (told.has(name) || isAlive(known.supervisor)) return
    const now = await readRecord(root, name)
    if (now === null || now.removing || told.has(name)) return
    told.add(name)
    onLost(name)
  }

  const lookAtAll = async (): Promise<void> => {
    const names = new Set(await listNames(root))
    for (const name of records.keys()) if (!names.has(name)) records.delete(name)
    for (const name of told) if (!names.has(name)) told.delete(name)
    for (const name of names) await lookAt(name)
  }

  return { lookAt, lookAtAll }
}

const ignore = (): void => undefined

/** Looks until the signal; a look that fails (a full file table, a directory in motion) is repeated by the next one. */
export const watchLost = (
  root: string,
  options: {
    onLost: (name: string) => void
    onExit: (listener: (name: string) => void) => () => void
    signal: AbortSignal
  },
): void => {
  const { signal } = options
  const { lookAt, lookAtAll } = createLostWatch(root, options.onLost)
  let timer: NodeJS.Timeout | undefined
  const again = (): void => {
    if (signal.aborted) return
    timer = setTimeout(() => void lookAtAll().catch(ignore).finally(again), watchMs)
    timer.unref()
  }
  const stopListening = options.onExit((name) => void lookAt(name).catch(ignore))
  signal.addEventListener('abort', () => {
    clearTimeout(timer)
    stopListening()
  })
  if (signal.aborted) stopListening()
  else void lookAtAll().catch(ignore).finally(again)
}
