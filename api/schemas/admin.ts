import { z } from 'zod'
import { Id, Time } from './common.ts'

const Percentiles = z
  .object({
    count: z.int(),
    p50_ms: z.number().nullable(),
    p95_ms: z.number().nullable(),
    p99_ms: z.number().nullable(),
  })
  .meta({ id: 'Percentiles' })

const counts = { provisioning: z.int(), warm: z.int(), claimed: z.int(), dead: z.int() }

export const AdminStats = z
  .object({
    warm_pool: z.object({
      configured_size: z.int(),
      max_provisioning: z.int(),
      ttl_minutes: z.number(),
      recent_agent_hours: z.number(),
      counts: z.object(counts),
      by_agent: z.array(
        z.object({ agent_id: Id, agent_name: z.string().nullable(), ...counts, oldest_warm_at: Time.nullable() }),
      ),
      hit_rate: z.number().nullable().describe('Hits among the claims of the last 24 hours, 0..1.'),
      outcomes: z
        .record(z.string(), z.int())
        .describe('Claims of the last 24 hours by outcome; what starts with miss_ is the reason.'),
      idle_sandbox_seconds: z
        .number()
        .describe('Time that sandboxes of the pool have waited warm in the last 24 hours: what the pool costs.'),
    }),
    sessions: z.object({
      counts: z.object({ creating: z.int(), ready: z.int(), failed: z.int(), dead: z.int() }),
      by_agent: z.array(
        z.object({ agent_id: Id, agent_name: z.string().nullable(), creating: z.int(), ready: z.int() }),
      ),
      start: z.object({ warm: Percentiles, cold: Percentiles }).describe('From the request to ready, last 24 hours.'),
    }),
    agents: z.object({ total: z.int() }),
    runtime: z.object({
      namespace: z.string(),
      harness_image: z.string(),
      container_port: z.int().nullable().describe('null: supervisors listen on any free port.'),
      reconcile_interval_seconds: z.number(),
      sandbox_driver: z.string(),
    }),
    detected_issues: z.array(
      z.object({
        code: z.string(),
        severity: z.enum(['high', 'med', 'info']),
        message: z.string(),
        recommended_action: z.string().optional(),
        agent_id: Id.optional(),
      }),
    ),
  })
  .meta({ id: 'AdminStats' })
export type AdminStats = z.output<typeof AdminStats>
