import { z } from 'zod'

export const Alive = z.object({ status: z.literal('ok') }).meta({ id: 'Alive' })

const Check = z.object({ ok: z.boolean(), error: z.string().optional() })

export const Readiness = z
  .object({
    status: z.enum(['ready', 'degraded', 'not_ready']),
    postgres: Check,
    migrations: Check,
    temporal: Check.describe('Without it sessions still start from the pool; their workflows follow when it is back.'),
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
    error: z.string().optional(),
  })
  .meta({ id: 'SandboxHealth' })
export type SandboxHealth = z.output<typeof SandboxHealth>
export type Readiness = z.output<typeof Readiness>
