import { renameSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { BootPhase, Health, SupervisorState, SupervisorStateFile } from '../domain/supervisor-protocol.ts'
import type { BootError } from './workspace.ts'

/** Where the supervisor is in its life; each change is in `state.json` before it can be seen from outside. */
export type Lifecycle = {
  read: () => Pick<Health, 'state' | 'phase' | 'failure'>
  enter: (next: { state?: SupervisorState; phase?: BootPhase | null }) => void
  fail: (error: BootError) => void
  listening: (port: number) => void
  /** Told of each change, after it. @returns ends that */
  onChange: (listener: () => void) => () => void
}

const failureCharsMax = 4_000

export const createLifecycle = (dir: string): Lifecycle => {
  const file = path.join(dir, 'state.json')
  const listeners = new Set<() => void>()
  let current: SupervisorStateFile = { state: 'booting', phase: null, port: null, pid: process.pid, failure: null }
  /** Replaced as a whole: a reader sees the old one or the new one. */
  const become = (change: Partial<SupervisorStateFile>): void => {
    current = { ...current, ...change }
    writeFileSync(`${file}.new`, `${JSON.stringify(current)}\n`, { mode: 0o600 })
    renameSync(`${file}.new`, file)
    for (const listener of listeners) listener()
  }
  return {
    read: () => ({ state: current.state, phase: current.phase, failure: current.failure }),
    enter: become,
    fail: ({ code, message }) =>
      become({ state: 'failed', failure: { code, message: message.slice(0, failureCharsMax) } }),
    listening: (port) => become({ port }),
    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}
