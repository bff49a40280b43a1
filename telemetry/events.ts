import type { RestoreReport } from '../domain/checkpoint.ts'
import type { PermissionStatus } from '../domain/permission-status.ts'
import type { SandboxPurpose } from '../domain/sandbox.ts'
import type { ClaimOutcome, EndReason, FailureCode, SpawnMode, StartPhases } from '../domain/session.ts'
import type { TurnStatus } from '../domain/turn.ts'
import type { AttemptResult, DeliveryStatus, DisabledReason } from '../domain/webhook.ts'
import type { Logger } from './log.ts'
import type { Metrics } from './metrics.ts'

/**
 * One function a business event: it writes one log line, whose `event` is the function's name in snake case, and counts. Fields are those of the
 * line; ids are in lines only, never in labels.
 */
export type Telemetry = { log: Logger; metrics: Metrics }

type SessionIds = { session_id: string; agent_id: string }
type SandboxIds = { sandbox_id: string; agent_id: string }

const seconds = (ms: number): number => Math.max(0, ms) / 1_000

// --- claims

/** The pool was asked for a sandbox. */
export const claimed = (
  { log, metrics }: Telemetry,
  fields: SessionIds & {
    outcome: ClaimOutcome
    sandbox_id: string | null
    sandbox_age_ms?: number | null
    attempt?: number
  },
): void => {
  metrics.poolClaim.inc({ outcome: fields.outcome })
  const hit = fields.outcome === 'hit' || fields.outcome === 'hit_shared'
  ;(hit ? metrics.poolHit : metrics.poolMiss).inc()
  log.info({ event: 'claimed', ...fields }, `claim: ${fields.outcome}`)
}

// --- sessions

/** A session's row is there; what the pool said is counted by `claimed`. */
export const sessionCreated = (
  { log }: Telemetry,
  fields: SessionIds & { spawn_mode: SpawnMode; title?: string | null },
): void => log.info({ event: 'session_created', ...fields }, 'session created')

/**
 * A session became ready for the first time.
 * @param fields.phases moment → ms since the request, as stored with the session
 */
export const sessionReady = (
  { log, metrics }: Telemetry,
  fields: SessionIds & {
    spawn_mode: SpawnMode
    sandbox_id: string
    attempt: number
    duration_ms: number
    phases?: StartPhases
  },
): void => {
  const { spawn_mode: path, phases = {} } = fields
  metrics.sessionSpawn.inc({ path, result: 'success' })
  metrics.sessionSpawnDuration.observe({ path }, seconds(fields.duration_ms))
  const moments = Object.entries(phases).toSorted(([, a], [, b]) => a - b)
  for (const [index, [phase, begin]] of moments.entries()) {
    const end = moments[index + 1]?.[1] ?? fields.duration_ms
    metrics.sessionPhaseDuration.observe({ phase }, seconds(end - begin))
  }
  log.info({ event: 'session_ready', ...fields }, `session ready after ${Math.round(fields.duration_ms)} ms (${path})`)
}

/** A session ended because of a failure, during its start or later. */
export const sessionFailed = (
  { log, metrics }: Telemetry,
  fields: SessionIds & { code: FailureCode; reason: string; spawn_mode: SpawnMode; starting: boolean },
): void => {
  const { spawn_mode: path, code } = fields
  if (fields.starting) {
    metrics.sessionSpawn.inc({ path, result: 'failed' })
    metrics.sessionSpawnFailure.inc({ path, reason: code })
  }
  metrics.sessionDeath.inc({ reason: `failed:${code}` })
  log.warn({ event: 'session_failed', ...fields }, `session failed: ${code}`)
}

/** A session ended as it should. */
export const sessionEnded = ({ log, metrics }: Telemetry, fields: SessionIds & { reason: EndReason }): void => {
  metrics.sessionDeath.inc({ reason: fields.reason })
  log.info({ event: 'session_ended', ...fields }, `session ended: ${fields.reason}`)
}

/** A live session lost its sandbox and goes on in another one. */
export const sandboxMoved = (
  { log, metrics }: Telemetry,
  fields: SessionIds & { reason: string; attempt: number; sandbox_id: string | null; interrupted_turn: string | null },
): void => {
  metrics.sandboxMoved.inc({ reason: fields.reason })
  log.warn({ event: 'sandbox_moved', ...fields }, `session moves to another sandbox: ${fields.reason}`)
}

// --- turns

export const turnStarted = (
  { log }: Telemetry,
  fields: { session_id: string; turn_id: string; sandbox_id: string },
): void => log.info({ event: 'turn_started', ...fields }, 'turn started')

/** A turn is over, in whatever way. `duration_ms` is null if it never ran. */
export const turnFinished = (
  { log, metrics }: Telemetry,
  fields: {
    session_id: string
    turn_id: string
    status: TurnStatus
    duration_ms: number | null
    error_code?: string | null
  },
): void => {
  const { status } = fields
  metrics.turns.inc({ status })
  if (fields.duration_ms !== null) metrics.turnDuration.observe({ status }, seconds(fields.duration_ms))
  log.info({ event: 'turn_finished', ...fields }, `turn ${status}`)
}

/** A harness asked before it did something. */
export const permissionAsked = (
  { log }: Telemetry,
  fields: { session_id: string; turn_id: string; kind: string },
): void => log.info({ event: 'permission_asked', ...fields }, `permission asked: ${fields.kind}`)

/** A question of a harness has its answer. */
export const permissionDecided = (
  { log, metrics }: Telemetry,
  fields: { session_id: string; turn_id: string; permission_id?: string; kind?: string; outcome: PermissionStatus },
): void => {
  metrics.permissions.inc({ outcome: fields.outcome })
  log.info({ event: 'permission_decided', ...fields }, `permission ${fields.outcome}`)
}

// --- checkpoints

export const checkpointStored = (
  { log, metrics }: Telemetry,
  fields: {
    session_id: string
    checkpoint_id: string
    turn_id: string
    bytes: number
    files: number
    omitted: number
    duration_ms: number
  },
): void => {
  metrics.checkpoints.inc({ result: 'stored' })
  metrics.checkpointBytes.observe(fields.bytes)
  metrics.checkpointDuration.observe(seconds(fields.duration_ms))
  log.info({ event: 'checkpoint_stored', ...fields }, `checkpoint stored: ${fields.bytes} bytes`)
}

/** It is tried again. `first`: of a row of failures. */
export const checkpointFailed = (
  { log, metrics }: Telemetry,
  fields: { session_id: string; turn_id: string; code: string; reason: string; first: boolean },
): void => {
  metrics.checkpoints.inc({ result: fields.code })
  log.warn({ event: 'checkpoint_failed', ...fields }, `no checkpoint: ${fields.code}`)
}

/** A session goes on in another sandbox with its files. */
export const restored = ({ log, metrics }: Telemetry, fields: { session_id: string } & RestoreReport): void => {
  metrics.restores.inc({ result: fields.conversation ? 'restored' : 'files_only' })
  log.info({ event: 'restored', ...fields }, `checkpoint restored: ${fields.files} files`)
}

/** A session goes on in another sandbox without its files. */
export const restoreFailed = (
  { log, metrics }: Telemetry,
  fields: { session_id: string; checkpoint_id: string; reason: string },
): void => {
  metrics.restores.inc({ result: 'failed' })
  log.error({ event: 'restore_failed', ...fields }, 'no checkpoint could be restored')
}

/** Events were appended to a session's log. Too frequent for a line. */
export const eventsAppended = ({ metrics }: Telemetry, count: number): void => {
  metrics.eventsAppended.inc(count)
}

// --- sandboxes

/** A sandbox is being started. */
export const sandboxProvisioning = ({ log }: Telemetry, fields: SandboxIds & { purpose: SandboxPurpose }): void =>
  log.info({ event: 'sandbox_provisioning', ...fields }, `sandbox provisioning (${fields.purpose})`)

/** A sandbox of the pool can be claimed. `duration_ms`: since its row. */
export const sandboxWarm = ({ log, metrics }: Telemetry, fields: SandboxIds & { duration_ms: number }): void => {
  metrics.poolProvision.inc({ result: 'success' })
  metrics.poolProvisionDuration.observe(seconds(fields.duration_ms))
  log.info({ event: 'sandbox_warm', ...fields }, `sandbox warm after ${Math.round(fields.duration_ms)} ms`)
}

/**
 * A sandbox did not start, or was lost. `stage`: `start`, `warm` (while it waited for a claim), `claim` (dead on arrival), `session`.
 */
export const sandboxFailed = (
  { log, metrics }: Telemetry,
  fields: SandboxIds & {
    purpose: SandboxPurpose
    stage: 'start' | 'warm' | 'claim' | 'session'
    code: FailureCode
    message: string
    session_id?: string | null
  },
): void => {
  if (fields.purpose === 'pool' && fields.stage === 'start') metrics.poolProvision.inc({ result: 'failed' })
  metrics.sandboxFailure.inc({ purpose: fields.purpose, reason: fields.code })
  if (fields.code === 'oom_killed') metrics.sandboxOomKilled.inc()
  log.warn({ event: 'sandbox_failed', ...fields }, `sandbox failed: ${fields.code}`)
}

/** A sandbox and everything of it was removed. `reason` for instance `session_ended`, `ttl`, `drift`, `drain`. */
export const sandboxRemoved = ({ log }: Telemetry, fields: SandboxIds & { reason?: string | null }): void =>
  log.info({ event: 'sandbox_removed', ...fields }, 'sandbox removed')

// --- the pool's decisions

/** @param fields.stale warm ones that were taken out because of their age or an older template */
export const poolDecided = (
  { log, metrics }: Telemetry,
  fields: {
    agent_id: string
    decision: string
    reason: string
    share: number
    warm: number
    provisioning: number
    stale: number
  },
): void => {
  metrics.reconcileWarmStale.inc(fields.stale)
  log.debug({ event: 'pool_decided', ...fields }, `pool: ${fields.decision}`)
}

export const poolBackedOff = (
  { log }: Telemetry,
  fields: { agent_id: string; failures: number; until: Date; reason: string },
): void =>
  log.warn({ event: 'pool_backed_off', ...fields }, `pool backs off after ${fields.failures} failures in a row`)

export const poolBreakerOpened = ({ log, metrics }: Telemetry, fields: { agent_id: string; reason: string }): void => {
  metrics.poolBreaker.inc()
  log.error({ event: 'pool_breaker_opened', ...fields }, 'pool stopped: the template keeps failing')
}

// --- webhooks

/** An event was sent to a webhook, or could not be. `status`: of the delivery after it. */
export const webhookAttempted = (
  { log, metrics }: Telemetry,
  fields: {
    webhook_id: string
    delivery_id: string
    type: string
    attempt: number
    result: AttemptResult
    status_code: number | null
    status: DeliveryStatus
    duration_ms: number
    error: string | null
  },
): void => {
  const { result, status } = fields
  metrics.webhookAttempts.inc({ result })
  metrics.webhookAttemptDuration.observe(seconds(fields.duration_ms))
  if (status !== 'pending') metrics.webhookDeliveries.inc({ status })
  log[status === 'failed' ? 'warn' : 'info']({ event: 'webhook_attempted', ...fields }, `webhook: ${result}`)
}

/** A webhook sends nothing any more, and nobody has asked for that. */
export const webhookDisabled = (
  { log, metrics }: Telemetry,
  fields: { webhook_id: string; reason: DisabledReason },
): void => {
  metrics.webhooksDisabled.inc({ reason: fields.reason })
  log.warn({ event: 'webhook_disabled', ...fields }, `webhook disabled: ${fields.reason}`)
}

// --- outbox, ledger, streams

export const outboxSent = (
  { log, metrics }: Telemetry,
  fields: { kind: string; subject: string; attempts: number; err?: unknown },
): void => {
  const failed = fields.err !== undefined
  metrics.outboxSent.inc({ kind: fields.kind, result: failed ? 'failed' : 'success' })
  // While Temporal is away every row fails again and again: the first time and now and then is enough.
  const level = fields.attempts % 10 === 1 ? 'warn' : 'debug'
  if (failed) log[level]({ event: 'outbox_failed', ...fields }, `outbox: ${fields.kind} failed`)
  else log.debug({ event: 'outbox_sent', ...fields }, `outbox: ${fields.kind}`)
}

/** Counts of what was put right; all 0 when nothing was wrong. */
export type Repairs = {
  /** Rows of sandboxes that are not there any more. */
  rows_gone: number
  /** Sandboxes without a row, or whose row says that they are gone. */
  objects_removed: number
  /** Sandboxes that belonged to nobody. */
  sandboxes_released: number
  /** Sandboxes in use whose place did not know it. */
  sandboxes_marked: number
  /** Live sessions that had no workflow. */
  workflows_started: number
  /** Sessions that should have failed long ago. */
  sessions_failed: number
  /** Sessions whose idle or age deadline had passed long ago. */
  sessions_expired: number
  /** Pools whose workflow made no decision any more. */
  pools_restarted: number
  /** Deliveries to webhooks whose workflow did not do what was due. */
  deliveries_started: number
  /** Checkpoints that nobody needed any more. */
  checkpoints_expired: number
  /** Checkpoints whose archive was not there, or not whole. */
  checkpoints_lost: number
  /** Archives of checkpoints that were given up, or that belonged to none. */
  archives_removed: number
  /** Sandboxes of ended sessions that are still there. */
  leaked: number
  /** What could not be looked at or put right; the next look tries again. */
  errors: number
}

/** Rows, objects and workflows were compared. Counts of what was repaired; a line only if there was something. */
export const ledgerChecked = ({ log, metrics }: Telemetry, fields: Repairs & { duration_ms: number }): void => {
  const { duration_ms, ...counts } = fields
  metrics.reconcileDuration.observe(seconds(duration_ms))
  metrics.reconcileGhosts.inc(fields.rows_gone)
  metrics.reconcileOrphans.inc(fields.objects_removed + fields.sandboxes_released)
  metrics.reconcileWorkflows.inc(fields.workflows_started + fields.pools_restarted + fields.deliveries_started)
  metrics.reconcileFailedCreating.inc(fields.sessions_failed)
  metrics.reconcileExpired.inc(fields.sessions_expired)
  metrics.reconcileErrors.inc(fields.errors)
  const repaired = Object.values(counts).some((count) => count > 0)
  if (repaired) log.warn({ event: 'ledger_repaired', ...fields }, 'ledger: differences repaired')
  else log.debug({ event: 'ledger_checked', duration_ms }, 'ledger: no difference')
}

/**
 * An event stream was opened.
 * @returns call it once when the stream is over; `slow` if its client was dropped for taking too little
 */
export const streamOpened = (
  { log, metrics }: Telemetry,
  fields: { session_id: string },
): ((end: 'closed' | 'ended' | 'slow') => void) => {
  metrics.streamsOpen.inc()
  let open = true
  return (end) => {
    if (!open) return
    open = false
    metrics.streamsOpen.dec()
    if (end !== 'slow') return
    metrics.streamsDropped.inc()
    log.warn({ event: 'stream_dropped', ...fields }, 'event stream dropped: its client is too slow')
  }
}

/** A terminal was opened. @returns call it when it is over, with the code of the WebSocket's close */
export const terminalOpened = (
  { log, metrics }: Telemetry,
  fields: { session_id: string; sandbox_id: string },
): ((code: number) => void) => {
  metrics.terminalsOpen.inc()
  const openedAt = performance.now()
  log.info({ event: 'terminal_opened', ...fields }, 'terminal opened')
  return (close_code) => {
    metrics.terminalsOpen.dec()
    const duration_ms = Math.round(performance.now() - openedAt)
    log.info({ event: 'terminal_closed', ...fields, close_code, duration_ms }, `terminal closed: ${close_code}`)
  }
}

/** A request was answered. `route` is the pattern (`/agents/{id}`), never the path. */
export const requestAnswered = (
  { log, metrics }: Telemetry,
  fields: { method: string; route: string; status: number; duration_ms: number },
): void => {
  const { method, route, status } = fields
  metrics.httpDuration.observe({ method, route, status: `${Math.floor(status / 100)}xx` }, seconds(fields.duration_ms))
  log[status >= 500 ? 'error' : 'info']({ event: 'request', ...fields }, `${method} ${route} ${status}`)
}
