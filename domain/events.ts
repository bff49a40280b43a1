/**
 * Types of the entries of a session's event log. `harness` carries one event of the harness' bus unchanged
 * (`{type, properties}`); the others are the platform's own.
 */
export const EVENT_TYPES = [
  'session.created',
  'session.phase',
  'session.ready',
  'session.ended',
  'session.updated',
  'session.limit_reached',
  'session.forked',
  'sandbox_moved',
  'turn.queued',
  'turn.started',
  'turn.edited',
  'turn.moved',
  'turn.interrupt_requested',
  'turn.finished',
  'checkpoint.stored',
  'checkpoint.incomplete',
  'checkpoint.failed',
  'permission.asked',
  'permission.replied',
  'permission.expired',
  'harness',
  'harness.exited',
  'harness.restarted',
] as const
export type EventType = (typeof EVENT_TYPES)[number]

/** One entry of the log. `seq` is gap free per session and starts at 1. */
export type SessionEvent = { seq: number; type: EventType; data: Record<string, unknown>; created_at: Date }

/** An entry to be appended; `seq` is given by the database. */
export type NewEvent = { type: EventType; data: Record<string, unknown> }
