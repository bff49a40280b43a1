import type { RestoreReport } from '../../domain/checkpoint.ts'
import { seconds, type Telemetry } from '../telemetry.ts'

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

/** A checkpoint could not be put into the next sandbox of its session, which goes on with an earlier one or without. */
export const restoreFailed = (
  { log, metrics }: Telemetry,
  fields: { session_id: string; checkpoint_id: string; reason: string },
): void => {
  metrics.restores.inc({ result: 'failed' })
  log.error({ event: 'restore_failed', ...fields }, 'a checkpoint could not be restored')
}
