import type { FailureCode } from '../domain/session.ts'
import type { ResourceRequirements } from '../domain/quantity.ts'
import type { SandboxPurpose } from '../domain/sandbox.ts'

/** Everything needed to start a sandbox. Nothing of a session, a tenant or a secret is in it. */
export type SandboxSpec = {
  sandboxId: string
  /** `sandboxName(sandboxId)`: new for every attempt. */
  name: string
  agentId: string
  templateHash: string
  purpose: SandboxPurpose
  harnessId: string
  image: string
  repoUrl: string
  branch: string
  /** Shell command run in the clone before the harness starts, or null. */
  setupCommand: string | null
  /** Plain environment of the harness and its tools (`CONTAINER_ENV_*` and the agent's own). */
  env: Record<string, string>
  /** The agent's own, or null. A driver that cannot hold a sandbox to them ignores them. */
  resources: ResourceRequirements | null
  /** The agent's egress rules: host names, `*.suffix`, addresses and ranges. A driver that cannot hold a sandbox to them ignores them. */
  allowOut: string[]
  denyOut: string[]
  /** Bearer token of the supervisor; derived from the sandbox id, so it need not be stored. */
  token: string
}

/** Why a sandbox is of no use, with what was seen of it. */
export type SandboxFailure = { code: FailureCode; message: string; evidence: Evidence }

/** What a driver knows of a sandbox at one moment; JSON, stored with the row when the sandbox goes. */
export type Evidence = {
  exists: boolean
  /** False: nothing of it runs any more. Absent when that is not known. */
  alive?: boolean
  /** What the driver calls its state, for instance `Running`, `exited`. */
  state?: string
  exitCode?: number | null
  signal?: string | null
  startedAt?: string
  node?: string
  /** Last lines of the log, oldest first. */
  logTail?: string[]
  /** Driver-specific facts (conditions, events, process ids). */
  details?: Record<string, unknown>
  error?: string
}

/** One sandbox as the driver lists it. */
export type ListedSandbox = {
  name: string
  sandboxId: string
  agentId: string
  alive: boolean
  createdAt: Date
  /** Whether its marks say which it was that came up, and whether it waits or is in use. True where nobody looks at marks. */
  isMarked: boolean
  /** The session that it is marked for, if it is. */
  sessionId: string | null
  /** Whether this installation made it; null: by a version that did not write down whose it is. */
  ours: boolean | null
}

export type ReadyProgress = (
  phase:
    | 'installing_harness'
    | 'pod_pending'
    | 'pod_running'
    | 'cloning_repo'
    | 'installing_deps'
    | 'harness_listening'
    | 'waiting_harness',
) => void

/** Thrown by `ready`: the sandbox will not become ready. */
export class SandboxFailedError extends Error {
  override name = 'SandboxFailedError'
  readonly failure: SandboxFailure
  constructor(failure: SandboxFailure) {
    super(`${failure.code}: ${failure.message}`)
    this.failure = failure
  }
}

/**
 * Where sandboxes live. Every call may be repeated: names are unique per attempt, and "already there" or "already gone" is success.
 */
export type SandboxDriver = {
  readonly kind: 'local' | 'kubernetes'
  /** @param onProgress told of what takes long before there is anything to look at */
  create(spec: SandboxSpec, onProgress?: ReadyProgress): Promise<void>
  /**
   * Resolves when the sandbox has booted (`session`) or is warm (`pool`); rejects with `SandboxFailedError`.
   * @returns base URL of its supervisor, for instance `http://127.0.0.1:41234`
   */
  ready(
    name: string,
    options: { deadlineMs: number; signal: AbortSignal; onProgress?: ReadyProgress },
  ): Promise<{ endpoint: string }>
  /** Tells the cluster that the sandbox is up and waits to be used, should it not know. null: nobody there looks at it. */
  readonly markReady: ((name: string) => Promise<void>) | null
  /** Tells the cluster that the sandbox now belongs to a session (labels, disruption budget). null: nobody there looks at it. */
  readonly markClaimed: ((name: string, sessionId: string) => Promise<void>) | null
  /** Removes it and everything that belongs to it; resolves when the removal is certain to happen. */
  remove(name: string): Promise<void>
  list(): Promise<ListedSandbox[]>
  inspect(name: string): Promise<Evidence>
  /** Why a sandbox that was alive is no longer. */
  lossOf(name: string): Promise<SandboxFailure>
  logs(name: string, options: { tailLines: number; sinceSeconds?: number }): Promise<string[]>
  /** Calls back with the name of each sandbox that was alive and is no longer, once per sandbox; stops with the signal. */
  watchLost(onLost: (name: string) => void, signal: AbortSignal): void
}
