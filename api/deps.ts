import type { Config } from '../config/config.ts'
import type { Database } from '../db/database.ts'
import type { Sql } from '../db/sql.ts'
import type { Listener } from '../db/listen.ts'
import type { HarnessEntry } from '../harness/registry.ts'
import type { SandboxInspector } from '../sandbox/inspector.ts'
import type { SupervisorClient } from '../sandbox/supervisor-client.ts'
import type { Logger } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { Temporal } from '../temporal/client.ts'
import type { OutboxRelay } from '../temporal/outbox-relay.ts'
import type { Sealer } from '../vault/seal.ts'

/** Everything the API works with; `bin/api.ts` makes it. */
export type ApiDeps = {
  config: Config
  db: Database
  /** That of `db`. */
  sql: Sql
  listener: Listener
  temporal: Temporal
  outbox: Pick<OutboxRelay, 'kick'>
  supervisor: SupervisorClient
  /** null: there is nothing beside the supervisors to ask about sandboxes. */
  inspector: SandboxInspector | null
  sealer: Sealer
  /** Harnesses that agents may choose. */
  harnesses: Pick<HarnessEntry, 'id' | 'supportsTui'>[]
  log: Logger
  metrics: Metrics
  /** Aborted when the process is ending: streams and waits end with a hint to come back. */
  drain: AbortSignal
}
