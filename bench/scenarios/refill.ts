import { stat } from 'node:fs/promises'
import path from 'node:path'
import type { Bench, Ready, Scenario } from '../bench.ts'
import { until } from '../client.ts'
import { type Figure, inTurn } from '../stats.ts'

const POOL = 10
const TIMEOUT_MS = 60_000

type Times = { claimed: Date; name: string; created: Date; ready: Date }

/** The sandbox that was claimed for the session, and the one made after it. */
const REPLACEMENT = `
  select c.claimed_at claimed, r.name, r.created_at created, r.ready_at ready
  from sandbox c join sandbox r on r.created_at >= c.claimed_at and r.purpose = 'pool'
  where c.session_id = $1 and r.ready_at is not null order by r.created_at limit 1`

const one = async (bench: Bench, ready: Ready) => {
  await ready.quiet()
  const session = await ready.open()
  const {
    claimed,
    name,
    created,
    ready: warm,
  } = await until('the replacement is warm', TIMEOUT_MS, async () => {
    const [row] = await bench.sql<Times>(REPLACEMENT, [session.id])
    return row
  })
  const { birthtimeMs } = await stat(path.join(bench.servers.sandboxDir, name))
  await ready.client.end(session.id)
  const since = (at: number): number => at - claimed.getTime()
  return { reserved: since(created.getTime()), begun: since(birthtimeMs), warm: since(warm.getTime()) }
}

const run = async (bench: Bench): Promise<Figure[]> => {
  const ready = await bench.withPool('light', POOL)
  await inTurn(3, () => one(bench, ready))
  const samples = await inTurn(bench.count(50, 5), () => one(bench, ready))
  return [
    {
      name: 'refill: claim → replacement reserved',
      samples: samples.map(({ reserved }) => reserved),
      reach: { p50: 100 },
    },
    { name: 'refill: claim → its start begins', samples: samples.map(({ begun }) => begun), reach: { p50: 100 } },
    { name: 'refill: claim → replacement warm (light)', samples: samples.map(({ warm }) => warm) },
  ]
}

export const refill: Scenario = { name: 'refill', about: 'how soon the pool replaces what was taken', run }
