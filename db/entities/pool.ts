import { defineEntity, p } from '@mikro-orm/core'

/** One answer of the pool to a session that asked for a sandbox: the data of statistics and sizing. `sandbox_age_ms`: how long it had been warm. */
export const Claim = defineEntity({
  name: 'Claim',
  tableName: 'claim',
  properties: {
    id: p.uuid().primary(),
    session_id: p.uuid(),
    agent_id: p.uuid(),
    attempt: p.integer(),
    outcome: p.text(),
    detail: p.text().nullable(),
    sandbox_id: p.uuid().nullable(),
    template_hash: p.text(),
    sandbox_age_ms: p.integer().nullable(),
    created_at: p.datetime(3),
  },
})

/** What an agent's pool last decided, and how its template fares. */
export type PoolStateRow = {
  agent_id: string
  share: number
  decision: string
  reason: string
  decided_at: Date
  /** Sandboxes it would start now, were the global limits not reached. */
  want: number
  failures: number
  backoff_until: Date | null
  breaker_open: boolean
  breaker_reason: string | null
  last_failure_at: Date | null
}

export const PoolState = defineEntity({
  name: 'PoolState',
  tableName: 'pool_state',
  properties: {
    agent_id: p.uuid().primary(),
    share: p.integer(),
    decision: p.text(),
    reason: p.text(),
    decided_at: p.datetime(3),
    want: p.integer(),
    failures: p.integer(),
    backoff_until: p.datetime(3).nullable(),
    breaker_open: p.boolean(),
    breaker_reason: p.text().nullable(),
    last_failure_at: p.datetime(3).nullable(),
  },
})

export const OUTBOX_KINDS = ['start_session', 'signal_session', 'poke_pool', 'deliver_webhook'] as const
export type OutboxKind = (typeof OUTBOX_KINDS)[number]
export type OutboxRow = { id: string; kind: OutboxKind; subject: string; attempts: number; created_at: Date }

/** Workflow starts and signals to send, written in the transaction that made them necessary. */
export const Outbox = defineEntity({
  name: 'Outbox',
  tableName: 'outbox',
  properties: {
    id: p.bigint('string').primary().autoincrement(),
    kind: p.text(),
    subject: p.uuid(),
    created_at: p.datetime(3),
    attempts: p.integer(),
    next_at: p.datetime(3),
    last_error: p.text().nullable(),
  },
})
