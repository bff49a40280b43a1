import type { Telemetry } from '../telemetry.ts'

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
