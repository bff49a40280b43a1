/**
 * A session's life:
 *
 *            bind                  idle, age, delete, agent deleted
 *   creating ─────► ready ─────────────────────────────► dead
 *      │              │
 *      │              └─ sandbox lost: stays `ready`, attempt + 1, event `sandbox_moved`
 *      ├─ delete ───► dead
 *      └─ typed failure, deadline ─► failed
 *
 * Every change is a compare-and-set on (status, attempt); an ended session stays ended.
 */
export const SESSION_STATUSES = ['creating', 'ready', 'failed', 'dead'] as const
export type SessionStatus = (typeof SESSION_STATUSES)[number]

export const SESSION_PHASES = [
  'creating_sandbox',
  'installing_harness',
  'pod_pending',
  'pod_running',
  'cloning_repo',
  'installing_deps',
  'harness_listening',
  'waiting_harness',
  'harness_ready',
  'ready',
] as const
export type SessionPhase = (typeof SESSION_PHASES)[number]

/** Why a start failed, or a sandbox was lost. Decided within 5 s of the cause being visible. */
export const FAILURE_CODES = [
  'image_pull',
  'unschedulable',
  'quota_exceeded',
  'clone_failed',
  'setup_failed',
  'harness_exited',
  'oom_killed',
  'vault_failed',
  'start_timeout',
  'sandbox_lost',
  'gateway_unreachable',
] as const
export type FailureCode = (typeof FAILURE_CODES)[number]

export type EndReason = 'deleted' | 'idle_timeout' | 'max_lifetime' | 'agent_deleted' | `failed:${FailureCode}`

export type SpawnMode = 'warm' | 'cold'

/** The outcome of asking the pool for a sandbox, recorded for each claim. */
export const CLAIM_OUTCOMES = [
  'hit',
  'hit_shared',
  'miss_empty',
  'miss_disabled',
  'miss_dormant',
  'miss_stale',
  'miss_dead',
  'miss_backoff',
] as const
export type ClaimOutcome = (typeof CLAIM_OUTCOMES)[number]

/** Name of a moment in the start → milliseconds since the request came in. */
export type StartPhases = Record<string, number>

export const isEnded = (status: SessionStatus): boolean => status === 'failed' || status === 'dead'
