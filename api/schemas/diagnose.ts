import { z } from 'zod'
import { ISSUE_CODES } from '../../domain/diagnosis.ts'
import { Id, Json, Time } from './common.ts'

const absent = { error: z.string().optional() }
const text = z.string().optional()
const number = z.number().optional()

const Condition = z.looseObject({ type: z.string(), status: z.string(), reason: text, message: text })
const Amounts = z.object({ cpu_millicores: z.number(), memory_bytes: z.number() })

const Pod = z.looseObject({
  exists: z.boolean(),
  phase: text,
  pod_ip: text,
  pod_ips: z.array(z.string()).optional(),
  node_name: text,
  age_ms: number,
  restart_count: number,
  container_statuses: z
    .array(
      z.looseObject({
        name: z.string(),
        ready: z.boolean(),
        restart_count: z.number(),
        waiting_reason: text,
        waiting_message: text,
        terminated_reason: text,
        terminated_exit_code: number,
      }),
    )
    .optional(),
  conditions: z.array(Condition).optional(),
  egress_policy: z
    .looseObject({
      exists: z.boolean(),
      name: text,
      allowed: z.array(z.string()).optional(),
      except: z.array(z.string()).optional(),
      ...absent,
    })
    .nullable()
    .optional()
    .describe('Its own NetworkPolicy, made from the egress rules of its agent; null: it has none.'),
  ...absent,
})

const Service = z.looseObject({
  exists: z.boolean(),
  expected: z
    .boolean()
    .optional()
    .describe('Whether sandboxes are reached through Services of their own (K8S_ACCESS).'),
  cluster_ip: text,
  age_ms: number,
  ports: z
    .array(
      z.object({
        port: z.number(),
        target_port: z.union([z.number(), z.string()]).optional(),
        node_port: number,
        protocol: text,
      }),
    )
    .optional(),
  node_port: number,
  ...absent,
})

const Node = z.looseObject({
  exists: z.boolean(),
  name: text,
  ready_status: text,
  ready_reason: text,
  internal_ip: text,
  external_ip: text,
  age_ms: number,
  taints: z.array(z.object({ key: z.string(), value: text, effect: z.string() })).optional(),
  capacity: Amounts.optional(),
  allocatable: Amounts.optional(),
  allocated_requests: Amounts.optional(),
  allocated_pct: z.object({ cpu: z.number(), memory: z.number() }).optional().describe('Of the capacity.'),
  pod_count: number,
  ...absent,
})

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
    source: z
      .enum(['live', 'stored'])
      .describe(
        'Where pod, sandbox_cr, service, node, image_cache and events come from: the cluster, just now; or the database, with what was seen of the sandbox before it went.',
      ),
    seen_at: Time.nullable().describe('When these were looked at.'),
    pod: Pod,
    sandbox_cr: z.looseObject({
      exists: z.boolean(),
      age_ms: number,
      conditions: z.array(Condition).optional(),
      pod_ips: z.array(z.string()).optional(),
      service: text,
      ...absent,
    }),
    service: Service,
    pod_logs_tail: z.object({ available: z.boolean(), text: z.string().optional(), ...absent }),
    node: Node,
    image_cache: z.looseObject({
      daemonset_exists: z.boolean().describe('Always false: there is none.'),
      ready_on_pod_node: z
        .boolean()
        .optional()
        .describe('Whether the node has the image; absent when it does not say.'),
      notes: text,
      ...absent,
    }),
    events: z
      .object({
        items: z.array(z.looseObject({ at: z.string(), type: text, reason: text, message: text, count: z.number() })),
        ...absent,
      })
      .describe('What the cluster has said of the sandbox, oldest first.'),
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
