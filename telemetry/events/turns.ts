import type { PermissionStatus } from '../../domain/permission-status.ts'
import type { TurnStatus } from '../../domain/turn.ts'
import { seconds, type Telemetry } from '../telemetry.ts'

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

/** Events were appended to a session's log. Too frequent for a line. */
export const eventsAppended = ({ metrics }: Telemetry, count: number): void => {
  metrics.eventsAppended.inc(count)
}
