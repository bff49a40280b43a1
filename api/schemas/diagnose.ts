import { z } from 'zod'
import { ISSUE_CODES } from '../../domain/diagnosis.ts'
import { Id, Json, Time } from './common.ts'

const absent = { error: z.string().optional() }

export const Diagnosis = z
  .object({
    session: z.object({
      session_id: Id,
      agent_id: Id,
      status: z.string(),
      task_arn: z.string().nullable(),
      sandbox_url: z.string().nullable(),
      failure_reason: z.string().nullable(),
      failure_code: z.string().nullable(),
      end_reason: z.string().nullable(),
      phase: z.string().nullable(),
      attempt: z.int(),
      spawn_mode: z.string(),
      created_at: Time,
      last_seen_at: Time.nullable(),
      stopped_at: Time.nullable(),
      age_ms: z.number(),
    }),
    agent: z
      .object({
        agent_id: Id,
        agent_name: z.string().nullable(),
        harness_id: z.string(),
        model: z.string(),
        repo_url: z.string().nullable(),
        branch: z.string(),
      })
      .nullable(),
    pod: z.looseObject({ exists: z.boolean(), phase: z.string().optional(), age_ms: z.number().optional(), ...absent }),
    sandbox_cr: z.looseObject({ exists: z.boolean(), ...absent }),
    service: z.looseObject({ exists: z.boolean(), ...absent }),
    pod_logs_tail: z.object({ available: z.boolean(), text: z.string().optional(), ...absent }),
    node: z.looseObject({ exists: z.boolean(), ...absent }),
    image_cache: z.looseObject({ daemonset_exists: z.boolean(), notes: z.string().optional() }),
    warm_pool: z.object({
      provisioning: z.int(),
      warm: z.int(),
      claimed: z.int(),
      dead: z.int(),
      configured_size: z.int(),
      claim_outcome: z.string().nullable().describe('What the pool answered this session.'),
      last_decision: z
        .object({
          decision: z.string().nullable(),
          reason: z.string().nullable(),
          share: z.int().nullable(),
          decided_at: Time.nullable(),
          failures: z.int(),
          backoff_until: Time.nullable(),
          breaker_open: z.boolean(),
          breaker_reason: z.string().nullable(),
        })
        .nullable(),
    }),
    harness_probe: z
      .object({
        reachable: z.boolean(),
        status: z.int().optional(),
        state: z.string().optional(),
        error: z.string().optional(),
      })
      .nullable(),
    start: z.object({
      spawn_mode: z.string(),
      phases: z.record(z.string(), z.number()).describe('Moment of the start → milliseconds since the request.'),
      total_ms: z.number().nullable(),
    }),
    sandboxes: z
      .array(Json)
      .describe('Every sandbox the session has had, the newest first, with the evidence kept of it.'),
    workflow: z.object({
      reachable: z.boolean(),
      id: z.string(),
      run_id: z.string().nullable(),
      status: z.string().nullable(),
      pending_activities: z.array(Json),
      ui_url: z.string().nullable(),
      error: z.string().optional(),
    }),
    detected_issues: z.array(
      z.object({
        code: z.enum(ISSUE_CODES),
        severity: z.enum(['high', 'med', 'info']),
        message: z.string(),
        recommended_action: z.string().optional(),
      }),
    ),
    notes: z.object({ platform_logs: z.string() }),
  })
  .meta({ id: 'Diagnosis' })
export type Diagnosis = z.output<typeof Diagnosis>
