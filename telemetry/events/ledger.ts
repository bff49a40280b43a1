import { seconds, type Telemetry } from '../telemetry.ts'

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
