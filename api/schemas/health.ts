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
export type Readiness = z.output<typeof Readiness>
