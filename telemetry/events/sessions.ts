import type { EndReason, FailureCode, SpawnMode, StartPhases } from '../../domain/session.ts'
import { seconds, type Telemetry } from '../telemetry.ts'

type SessionIds = { session_id: string; agent_id: string }

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
