import { errorText } from '../domain/errors.ts'
import type { Health, SupervisorConfig } from '../domain/supervisor-protocol.ts'
import { rehearse } from './rehearsal.ts'
import { type Supervisor, type SupervisorOptions, createSupervisor } from './supervisor.ts'
import { BootError } from './workspace.ts'

export type Failure = NonNullable<Health['failure']>

/** The one sandbox of this process. It listens before it is told what it is for; then it has a supervisor, which boots. */
export type Sandbox = {
  /** null until it has been started and its harness is loaded. */
  supervisor: () => Supervisor | null
  /** null until it is started. */
  health: () => Health | null
  /** Told of each change of state and phase, after it. @returns ends that */
  onChange: (listener: () => void) => () => void
  /** Boots it; called once. Failures go to `onFailed`. @param config `listen`: where it listens already */
  start: (config: SupervisorConfig) => Promise<void>
  stop: () => Promise<void>
}

export type SandboxOptions = Pick<SupervisorOptions, 'path' | 'out'> & {
  /** It is of no use: it did not boot, or its harness died before it was bound. */
  onFailed: (failure: Failure) => void
}

const loading = ({ sandbox_id, template_hash, harness }: SupervisorConfig): Health => ({
  sandbox_id,
  template_hash,
  state: 'booting',
  phase: null,
  failure: null,
  epoch: null,
  harness: { id: harness.id, running: false, pid: null, restarts: 0 },
  running_turn: null,
  journal_seq: 0,
})

/** What fails before there is a supervisor is, but for its harness, the directory that it was given. */
const failureOf = (error: unknown): Failure => {
  const { code, message } = error instanceof BootError ? error : new BootError('setup_failed', errorText(error))
  return { code, message }
}

export const createSandbox = ({ path, out, onFailed }: SandboxOptions): Sandbox => {
  const listeners = new Set<() => void>()
  let supervisor: Supervisor | null = null
  let before: Health | null = null
  const health = (): Health | null => supervisor?.health() ?? before
  const changed = (): void => {
    for (const listener of listeners) listener()
  }
  const failed = (error: unknown): void => onFailed(health()?.failure ?? failureOf(error))

  const load = async (config: SupervisorConfig): Promise<Supervisor | null> => {
    before = loading(config)
    try {
      return await createSupervisor(config, { path, out, onDead: () => failed(null) })
    } catch (error) {
      before = { ...before, state: 'failed', failure: failureOf(error) }
      out(`${errorText(error)}\n`)
      changed()
      failed(error)
      return null
    }
  }

  return {
    supervisor: () => supervisor,
    health,
    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    async start(config) {
      supervisor = await load(config)
      if (supervisor === null) return
      supervisor.onChange(changed)
      supervisor.listening(config.listen.port)
      await supervisor.boot(() => rehearse({ ...config.listen, token: config.token })).catch(failed)
    },
    stop: async () => supervisor?.stop(),
  }
}
