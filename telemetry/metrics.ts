import { collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import { SANDBOX_STATES } from '../domain/sandbox.ts'
import { SESSION_STATUSES } from '../domain/session.ts'
import { createCounters } from './counters.ts'

/** What the gauges show, read at each scrape. A count that is not given is not touched; a state that is not in a record counts as 0. */
export type GaugeValues = {
  /** Sandboxes by state. */
  sandboxes?: Partial<Record<string, number>>
  /** Sandboxes made for the pool, by state. */
  pool?: Partial<Record<string, number>>
  /** Sessions by status. */
  sessions?: Partial<Record<string, number>>
  /** Rows that no relay has sent yet. */
  outbox?: number
  /** Deliveries to webhooks that are not over. */
  webhookDeliveries?: number
  /** Sandboxes of ended sessions, and objects without a row, past the grace time. Must be 0. */
  leakedSandboxes?: number
}

/** No label holds an id, so the number of series does not grow with use. */
export type Metrics = ReturnType<typeof createMetrics>

export const createGauges = (registers: Registry[]) => ({
  sandboxes: new Gauge({ name: 'sandboxes', help: 'Sandboxes by state', labelNames: ['state'], registers }),
  pool: new Gauge({ name: 'warm_pool_depth', help: 'Pool sandboxes by state', labelNames: ['state'], registers }),
  sessions: new Gauge({ name: 'sessions_live', help: 'Sessions by status', labelNames: ['status'], registers }),
  outbox: new Gauge({ name: 'outbox_depth', help: 'Workflow starts and signals that wait to be sent', registers }),
  webhookDeliveries: new Gauge({
    name: 'webhook_deliveries_pending',
    help: 'Deliveries to webhooks that wait for their first or next try',
    registers,
  }),
  leaked: new Gauge({ name: 'leaked_sandboxes', help: 'Sandboxes that belong to nothing; must be 0', registers }),
})

/**
 * Metrics of one process, in a registry of its own. The gauges of shared state (pool, sessions, outbox) are absent until a source is given.
 */
export const createMetrics = () => {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const registers = [registry]
  let source: (() => Promise<GaugeValues>) | null = null
  let shared: ReturnType<typeof createGauges> | null = null

  /** Calls `read` at each scrape. If it fails, the gauges are left out of that scrape rather than shown old. */
  const readGaugesFrom = (read: () => Promise<GaugeValues>): void => {
    source = read
    shared ??= createGauges(registers)
  }

  /** Text of a scrape (Prometheus 0.0.4). */
  const scrape = async (): Promise<string> => {
    if (source !== null && shared !== null) {
      for (const gauge of [shared.sandboxes, shared.pool, shared.sessions]) gauge.reset()
      for (const gauge of [shared.outbox, shared.webhookDeliveries, shared.leaked]) gauge.remove()
      setGauges(shared, await source().catch((): GaugeValues => ({})))
    }
    return registry.metrics()
  }

  return { ...createCounters(registers), contentType: registry.contentType, readGaugesFrom, scrape }
}

const setGauges = (shared: ReturnType<typeof createGauges>, values: GaugeValues): void => {
  if (values.sandboxes !== undefined)
    for (const state of SANDBOX_STATES) shared.sandboxes.set({ state }, values.sandboxes[state] ?? 0)
  if (values.pool !== undefined) for (const state of SANDBOX_STATES) shared.pool.set({ state }, values.pool[state] ?? 0)
  if (values.sessions !== undefined)
    for (const status of SESSION_STATUSES) shared.sessions.set({ status }, values.sessions[status] ?? 0)
  if (values.outbox !== undefined) shared.outbox.set(values.outbox)
  if (values.webhookDeliveries !== undefined) shared.webhookDeliveries.set(values.webhookDeliveries)
  if (values.leakedSandboxes !== undefined) shared.leaked.set(values.leakedSandboxes)
}
