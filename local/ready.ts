import { type FSWatcher, watch } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { hasBooted } from '../domain/supervisor-protocol.ts'
import type { SupervisorStateFile } from '../domain/supervisor-protocol.ts'
import { type ReadyProgress, SandboxFailedError } from '../sandbox/driver.ts'
import { type Exit, failureOf, inspectSandbox } from './evidence.ts'
import { isAlive } from './processes.ts'
import { dirOf, readRecord, readState, STATE_FILE } from './records.ts'

/** Should the watch of the directory miss a change, this finds it; and the end of a supervisor, which writes nothing then. */
const rereadMs = 250

/** How a child ended is told a moment after it shows as dead; of a child of another process it never is. */
const exitMs = 100

/** Calls back when the state file changes; null where watching is not possible, for instance for want of inotify watches. */
const watchState = (dir: string, onChange: () => void): FSWatcher | null => {
  try {
    const watcher = watch(dir, (_event, file) => {
      if (file === null || file === STATE_FILE) onChange()
    })
    watcher.on('error', () => watcher.close())
    return watcher
  } catch {
    return null
  }
}

/** `next()` resolves at the next change, or one that nobody has waited for yet, and at the latest after `rereadMs`. */
const createChanges = (dir: string, signal: AbortSignal) => {
  let pending = false
  let wake: (() => void) | null = null
  const onChange = (): void => {
    pending = true
    wake?.()
  }
  const watcher = watchState(dir, onChange)
  signal.addEventListener('abort', onChange)
  const next = async (): Promise<void> => {
    if (!pending)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, rereadMs)
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    wake = null
    pending = false
  }
  const close = (): void => {
    watcher?.close()
    signal.removeEventListener('abort', onChange)
  }
  return { next, [Symbol.dispose]: close }
}

const endpointOf = (host: string, port: number): string => `http://${host.includes(':') ? `[${host}]` : host}:${port}`

type Phase = Parameters<ReadyProgress>[0]
type Look = { is: 'ready'; port: number } | { is: 'failed' } | { is: 'starting'; state: SupervisorStateFile | null }

const look = async (root: string, name: string): Promise<Look> => {
  const record = await readRecord(root, name)
  if (record === null) return { is: 'failed' }
  // Alive first, then the state: a state written just before the end is then not missed.
  const alive = isAlive(record.supervisor)
  const state = await readState(root, name)
  if (!alive || state?.state === 'failed') return { is: 'failed' }
  if (state !== null && state.port !== null && hasBooted(record.purpose, state.state))
    return { is: 'ready', port: state.port }
  return { is: 'starting', state }
}

/** Waits for a sandbox to have booted (`session`) or to be warm (`pool`). `deadlineMs` counts from now. */
export const awaitReady = async (
  where: { root: string; host: string; exitOf: (name: string) => Exit | undefined },
  name: string,
  options: { deadlineMs: number; signal: AbortSignal; onProgress?: ReadyProgress },
): Promise<{ endpoint: string }> => {
  const { root, host, exitOf } = where
  const { deadlineMs, signal, onProgress } = options
  const deadline = performance.now() + deadlineMs
  using changes = createChanges(dirOf(root, name), signal)
  let shown: Phase | null = null
  for (;;) {
    signal.throwIfAborted()
    const seen = await look(root, name)
    if (seen.is === 'ready') return { endpoint: endpointOf(host, seen.port) }
    if (seen.is === 'failed') {
      if (exitOf(name) === undefined) await sleep(exitMs)
      throw new SandboxFailedError(await failureOf(root, name, exitOf(name)))
    }
    // A supervisor may be further at the first look; that it runs comes first all the same.
    if (shown === null) onProgress?.('pod_running')
    const phase: Phase = seen.state?.phase ?? shown ?? 'pod_running'
    if (phase !== (shown ?? 'pod_running')) onProgress?.(phase)
    shown = phase
    if (performance.now() >= deadline)
      throw new SandboxFailedError({
        code: 'start_timeout',
        message: `The sandbox was not ready after ${Math.round(deadlineMs / 1_000)} s; it was in ${phase}.`,
        evidence: await inspectSandbox(root, name, exitOf(name)),
      })
    await changes.next()
  }
}
