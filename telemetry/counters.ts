import { Counter, Gauge, Histogram, type Registry } from 'prom-client'

/** Seconds. Warm starts take milliseconds, cold ones seconds, image pulls minutes. */
const START_BUCKETS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600]
const PHASE_BUCKETS = [0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300]
const TURN_BUCKETS = [0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3_600]
const BYTE_BUCKETS = [1e3, 1e4, 1e5, 1e6, 1e7, 5e7, 1e8, 5e8]
const FAST_BUCKETS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30]

const sessionMetrics = (registers: Registry[]) => ({
  sessionSpawn: new Counter({
    name: 'session_spawn_total',
    help: 'Sessions that became ready or failed, by path (warm, cold)',
    labelNames: ['path', 'result'],
    registers,
  }),
  sessionSpawnFailure: new Counter({
    name: 'session_spawn_failure_total',
    help: 'Sessions that failed to start, by path and failure code',
    labelNames: ['path', 'reason'],
    registers,
  }),
  sessionSpawnDuration: new Histogram({
    name: 'session_spawn_duration_seconds',
    help: 'From the request to a ready session',
    labelNames: ['path'],
    buckets: START_BUCKETS,
    registers,
  }),
  sessionPhaseDuration: new Histogram({
    name: 'session_phase_duration_seconds',
    help: 'Time spent in each phase of the start',
    labelNames: ['phase'],
    buckets: PHASE_BUCKETS,
    registers,
  }),
  sessionDeath: new Counter({
    name: 'session_death_total',
    help: 'Sessions that ended, by reason',
    labelNames: ['reason'],
    registers,
  }),
  sandboxMoved: new Counter({
    name: 'session_sandbox_moved_total',
    help: 'Sandboxes lost by live sessions, which went on in another one, by failure code',
    labelNames: ['reason'],
    registers,
  }),
  turns: new Counter({ name: 'turn_total', help: 'Turns that are over, by status', labelNames: ['status'], registers }),
  permissions: new Counter({
    name: 'permission_total',
    help: 'Questions of harnesses that are over, by outcome (allowed, denied, expired)',
    labelNames: ['outcome'],
    registers,
  }),
  turnDuration: new Histogram({
    name: 'turn_duration_seconds',
    help: 'From the start of a turn to its end',
    labelNames: ['status'],
    buckets: TURN_BUCKETS,
    registers,
  }),
})

const checkpointMetrics = (registers: Registry[]) => ({
  checkpoints: new Counter({
    name: 'checkpoint_total',
    help: 'Checkpoints, by result: stored, or why not',
    labelNames: ['result'],
    registers,
  }),
  checkpointBytes: new Histogram({
    name: 'checkpoint_bytes',
    help: 'Size of stored checkpoints',
    buckets: BYTE_BUCKETS,
    registers,
  }),
  checkpointDuration: new Histogram({
    name: 'checkpoint_duration_seconds',
    help: 'Taking and storing a checkpoint',
    buckets: PHASE_BUCKETS,
    registers,
  }),
  restores: new Counter({
    name: 'checkpoint_restore_total',
    help: 'Checkpoints put into another sandbox, by result (restored, files_only, failed)',
    labelNames: ['result'],
    registers,
  }),
})

const poolMetrics = (registers: Registry[]) => ({
  poolHit: new Counter({ name: 'warm_pool_hit_total', help: 'Sessions served by the pool', registers }),
  poolMiss: new Counter({ name: 'warm_pool_miss_total', help: 'Sessions not served by the pool', registers }),
  poolClaim: new Counter({
    name: 'warm_pool_claim_total',
    help: 'Claims by outcome (hit, hit_shared, miss_…)',
    labelNames: ['outcome'],
    registers,
  }),
  poolProvision: new Counter({
    name: 'warm_pool_provision_total',
    help: 'Sandboxes started for the pool, by result',
    labelNames: ['result'],
    registers,
  }),
  poolProvisionDuration: new Histogram({
    name: 'warm_pool_provision_duration_seconds',
    help: 'From the row of a sandbox to warm',
    buckets: PHASE_BUCKETS,
    registers,
  }),
  poolBreaker: new Counter({
    name: 'warm_pool_breaker_opened_total',
    help: 'Pools stopped because their template keeps failing',
    registers,
  }),
  sandboxFailure: new Counter({
    name: 'sandbox_failure_total',
    help: 'Sandboxes that failed, by purpose and failure code',
    labelNames: ['purpose', 'reason'],
    registers,
  }),
  sandboxOomKilled: new Counter({
    name: 'sandbox_oom_killed_total',
    help: 'Sandboxes killed because their memory ran out',
    registers,
  }),
})

const serverMetrics = (registers: Registry[]) => ({
  httpDuration: new Histogram({
    name: 'http_request_duration_seconds',
    help: 'Requests by method, route pattern and status class',
    labelNames: ['method', 'route', 'status'],
    buckets: FAST_BUCKETS,
    registers,
  }),
  streamsOpen: new Gauge({ name: 'sse_streams_open', help: 'Event streams open in this process', registers }),
  streamsDropped: new Counter({
    name: 'sse_streams_dropped_total',
    help: 'Event streams closed because their client was too slow',
    registers,
  }),
  terminalsOpen: new Gauge({ name: 'terminals_open', help: 'Terminals open in this process', registers }),
  outboxSent: new Counter({
    name: 'outbox_sent_total',
    help: 'Workflow starts and signals relayed, by kind and result',
    labelNames: ['kind', 'result'],
    registers,
  }),
  eventsAppended: new Counter({ name: 'event_appended_total', help: 'Events appended to session logs', registers }),
})

const webhookMetrics = (registers: Registry[]) => ({
  webhookAttempts: new Counter({
    name: 'webhook_attempt_total',
    help: 'Tries to deliver to webhooks, by result (success, status, timeout, connection, refused)',
    labelNames: ['result'],
    registers,
  }),
  webhookAttemptDuration: new Histogram({
    name: 'webhook_attempt_duration_seconds',
    help: 'One try to deliver to a webhook',
    buckets: FAST_BUCKETS,
    registers,
  }),
  webhookDeliveries: new Counter({
    name: 'webhook_delivery_total',
    help: 'Deliveries to webhooks that were delivered or given up, by status',
    labelNames: ['status'],
    registers,
  }),
  webhooksDisabled: new Counter({
    name: 'webhook_disabled_total',
    help: 'Webhooks that were disabled because of what their receiver did, by reason (gone, failing)',
    labelNames: ['reason'],
    registers,
  }),
})

const janitorMetrics = (registers: Registry[]) => ({
  reconcileDuration: new Histogram({
    name: 'reconcile_duration_seconds',
    help: 'One comparison of rows, sandboxes and workflows',
    buckets: [0.1, 0.5, 1, 2, 5, 10, 30],
    registers,
  }),
  reconcileFailedCreating: new Counter({
    name: 'reconcile_failed_creating_total',
    help: 'Sessions that never became ready, ended by the janitor',
    registers,
  }),
  reconcileExpired: new Counter({
    name: 'reconcile_idle_killed_total',
    help: 'Sessions past their idle or age deadline, ended by the janitor instead of their workflow',
    registers,
  }),
  reconcileGhosts: new Counter({
    name: 'reconcile_ghost_killed_total',
    help: 'Rows whose sandbox was not there any more',
    registers,
  }),
  reconcileWarmStale: new Counter({
    name: 'reconcile_warm_stale_killed_total',
    help: 'Warm sandboxes taken out because of their age or an older template',
    registers,
  }),
  reconcileOrphans: new Counter({
    name: 'reconcile_orphan_removed_total',
    help: 'Sandboxes that belonged to no row or to no session',
    registers,
  }),
  reconcileWorkflows: new Counter({
    name: 'reconcile_workflow_started_total',
    help: 'Workflows that were missing or wedged',
    registers,
  }),
  reconcileErrors: new Counter({
    name: 'reconcile_error_total',
    help: 'Differences that could not be put right; the next comparison tries again',
    registers,
  }),
})

/** What events count and measure. */
export const createCounters = (registers: Registry[]) => ({
  ...sessionMetrics(registers),
  ...checkpointMetrics(registers),
  ...poolMetrics(registers),
  ...serverMetrics(registers),
  ...webhookMetrics(registers),
  ...janitorMetrics(registers),
})
