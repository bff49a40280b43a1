import type { OutboxKind, OutboxRow } from '../db/entities/pool.ts'
import { sessionToStart } from '../db/flow.ts'
import { outboxFailed, outboxSent, takeOutbox } from '../db/outbox.ts'
import { deliveryToStart } from '../db/webhook-deliveries.ts'
import type { Sql } from '../db/sql.ts'
import { errorText } from '../domain/errors.ts'
import { outboxConcurrency, outboxPollMs, outboxRetryFirstMs, outboxRetryMaxMs } from '../domain/limits.ts'
import type { Telemetry } from '../telemetry/telemetry.ts'
import { outboxSent as sent } from '../telemetry/events/outbox.ts'
import type { Temporal } from './client.ts'

/** Sends what transactions left in the outbox. Every process has one; a row is sent at least once, and every message may come twice. */
export type OutboxRelay = AsyncDisposable & {
  /** Something was committed: send it now instead of at the next poll. */
  kick(): void
}

/** Temporal's client says what it tried; what the server answered is the cause. */
const reasonOf = (error: unknown): string =>
  Error.isError(error) && Error.isError(error.cause) ? `${error.message}: ${error.cause.message}` : errorText(error)

/** Messages that say the same: several pokes of one pool become one. */
type Batch = { kind: OutboxKind; subject: string; rows: OutboxRow[] }

const batchesOf = (rows: OutboxRow[]): Batch[] => {
  const batches = new Map<string, Batch>()
  for (const row of rows) {
    const key = `${row.kind} ${row.subject}`
    const batch = batches.get(key) ?? { kind: row.kind, subject: row.subject, rows: [] }
    batch.rows.push(row)
    batches.set(key, batch)
  }
  return [...batches.values()]
}

const startSession = async (deps: { sql: Sql; temporal: Temporal }, sessionId: string): Promise<void> => {
  const session = await sessionToStart(deps.sql, sessionId)
  if (session === null) return
  const summary = `${session.title ?? 'Session'} · ${session.agent_name ?? session.agent_id}`.slice(0, 200)
  await deps.temporal.startSession({ sessionId, agentId: session.agent_id, summary })
}

/** The host alone names the receiver: the rest of a webhook's address may be secret. */
const deliverWebhook = async (deps: { sql: Sql; temporal: Temporal }, deliveryId: string): Promise<void> => {
  const delivery = await deliveryToStart(deps.sql, deliveryId)
  // Nothing is to be delivered any more: who waits to do it is told.
  if (delivery === null) await deps.temporal.signalDelivery(deliveryId)
  else await deps.temporal.deliverWebhook(deliveryId, `${delivery.type} · ${new URL(delivery.url).host}`)
}

const send = async (deps: { sql: Sql; temporal: Temporal }, { kind, subject }: Batch): Promise<void> => {
  if (kind === 'start_session') await startSession(deps, subject)
  else if (kind === 'poke_pool') await deps.temporal.pokePool(subject)
  else if (kind === 'deliver_webhook') await deliverWebhook(deps, subject)
  // Nobody there to hear it: an ended session needs nothing, a live one has lost its start.
  else if (!(await deps.temporal.signalSession(subject))) await startSession(deps, subject)
}

export const createOutboxRelay = (deps: { sql: Sql; temporal: Temporal } & Telemetry): OutboxRelay => {
  let ending = false
  let taking = false
  let again = false
  let down = false
  const inFlight = new Set<Promise<void>>()
  let lastTake = Promise.resolve()

  const deliver = async (batch: Batch): Promise<void> => {
    const ids = batch.rows.map(({ id }) => id)
    const attempts = Math.max(...batch.rows.map((row) => row.attempts))
    const fields = { kind: batch.kind, subject: batch.subject, attempts }
    try {
      await send(deps, batch)
      await outboxSent(deps.sql, ids)
      sent(deps, fields)
    } catch (err) {
      const reason = reasonOf(err)
      sent(deps, { ...fields, err: reason })
      const delayMs = Math.min(outboxRetryMaxMs, outboxRetryFirstMs * 2 ** Math.min(attempts - 1, 20))
      // If this fails too, the lease of the row runs out and it comes up again.
      await outboxFailed(deps.sql, ids, { error: reason, delayMs }).catch(() => {})
    }
  }

  /** @returns whether there may be more */
  const takeSome = async (): Promise<boolean> => {
    const room = outboxConcurrency - inFlight.size
    if (room <= 0) return false
    const rows = await takeOutbox(deps.sql, room)
    for (const batch of batchesOf(rows)) {
      const delivery: Promise<void> = deliver(batch).finally(() => {
        inFlight.delete(delivery)
        pump()
      })
      inFlight.add(delivery)
    }
    return rows.length === room
  }

  const take = async (): Promise<void> => {
    try {
      for (;;) {
        again = false
        const more = await takeSome()
        if (ending || !(more || again)) break
      }
      down = false
    } catch (error) {
      if (!down) deps.log.warn({ reason: errorText(error) }, 'the outbox cannot be read')
      down = true
    } finally {
      taking = false
    }
  }

  const pump = (): void => {
    again = true
    if (ending || taking) return
    taking = true
    lastTake = take()
  }

  const timer = setInterval(pump, outboxPollMs)
  timer.unref()
  return {
    kick: pump,
    [Symbol.asyncDispose]: async () => {
      ending = true
      clearInterval(timer)
      // What was taken is sent: a call to Temporal that outlives its connection would throw where nobody catches it.
      await lastTake
      await Promise.allSettled(inFlight)
    },
  }
}
