import { z } from 'zod'

export const Alive = z.object({ status: z.literal('ok') }).meta({ id: 'Alive' })

const Check = z.object({ ok: z.boolean(), error: z.string().optional() })

const Problem = z
  .object({ what: z.string(), detail: z.string().optional(), remedy: z.string() })
  .meta({ id: 'ClusterProblem' })

/** What the API itself may see of the cluster. */
const ClusterHealth = z
  .object({
    ok: z.boolean(),
    problems: z.array(Problem).describe('What keeps sandboxes from being made or seen, each with its remedy.'),
    warnings: z.array(Problem).describe('What is seen late, or not shown.'),
  })
  .meta({ id: 'ClusterHealth' })

export const Readiness = z
  .object({
    status: z.enum(['ready', 'degraded', 'not_ready']),
    postgres: Check,
    migrations: Check,
    temporal: Check.describe('Without it sessions still start from the pool; their workflows follow when it is back.'),
    cluster: Check.optional().describe(
      'With SANDBOX_DRIVER=kubernetes: what is missing there, with its remedy. Without it what is warm is still handed out, and everything can be read.',
    ),
  })
  .meta({ id: 'Readiness' })
/** Names of the fields as clients of other deployments of the platform know them. */
export const SandboxHealth = z
  .object({
    ok: z.boolean(),
    driver: z.enum(['local', 'kubernetes']),
    workers: z
      .int()
      .describe('Pollers of the worker processes, which make and remove sandboxes, seen in the last 90 s.'),
    elapsed_ms: z.number(),
    cluster: ClusterHealth.optional().describe('With SANDBOX_DRIVER=kubernetes.'),
    error: z.string().optional(),
  })
  .meta({ id: 'SandboxHealth' })
export type SandboxHealth = z.output<typeof SandboxHealth>
export type Readiness = z.output<typeof Readiness>
