import { setTimeout as sleep } from 'node:timers/promises'
import type { Bench, Ready, Scenario } from '../bench.ts'
import { assertWarm } from '../bench.ts'
import { elapsed, type Figure, inTurn } from '../stats.ts'

const POOL = 10
/** The first requests of a process compile its code. */
const WARM_UP = 10

/** One create on a quiet platform, then quiet again. */
const alone = async (ready: Ready): Promise<{ ms: number; phases: Record<string, number> }> => {
  await ready.quiet()
  const begin = performance.now()
  const session = await ready.open()
  const ms = performance.now() - begin
  await ready.client.end(session.id)
  return { ms, phases: session.phases }
}

/** Creates that come at fixed moments, whatever became of those before, while the pool refills. */
const atRate = async (ready: Ready, count: number, perSecond: number): Promise<number[]> => {
  const begin = performance.now()
  const creates = Array.from({ length: count }, async (_, i) => {
    const due = begin + (i * 1_000) / perSecond
    await sleep(Math.max(0, due - performance.now()))
    const session = assertWarm(await ready.client.session(ready.agentId))
    const ms = performance.now() - due
    return { ms, id: session.id }
  })
  const sessions = await Promise.all(creates)
  await Promise.all(sessions.map(({ id }) => ready.client.end(id)))
  return sessions.map(({ ms }) => ms)
}

const run = async (bench: Bench): Promise<Figure[]> => {
  const ready = await bench.withPool('light', POOL)
  await inTurn(bench.count(WARM_UP, 3), () => alone(ready))
  const samples = await inTurn(bench.count(100, 10), () => alone(ready))
  await ready.quiet()
  // Every API call has this in it: the time that the same process needs for its smallest reply.
  const smallest = await inTurn(bench.count(200, 20), () => elapsed(() => ready.client.call('GET', '/healthz')))
  const phase = (name: string, since?: string): number[] =>
    samples.map(
      ({ phases }) => (phases[name] ?? Number.NaN) - (since === undefined ? 0 : (phases[since] ?? Number.NaN)),
    )
  return [
    {
      name: 'warm create: request → ready',
      samples: samples.map(({ ms }) => ms),
      reach: { p50: 20, p95: 50, p99: 90 },
    },
    { name: '  of it: session stored, sandbox claimed', samples: phase('claimed') },
    { name: '  of it: bind', samples: phase('bound', 'claimed') },
    { name: '  beside it: GET /healthz', samples: smallest },
  ]
}

const runLoaded = async (bench: Bench): Promise<Figure[]> => {
  const size = bench.count(100, 10)
  const ready = await bench.withPool('light', size)
  const samples = await atRate(ready, bench.count(80, 8), 5)
  await ready.quiet()
  return [{ name: 'warm create at 5 a second, pool refilling', samples, reach: { p50: 20, p95: 50, p99: 90 } }]
}

export const warmCreate: Scenario = {
  name: 'warm-create',
  about: 'one create after the other, each on a quiet platform',
  run,
}
export const warmCreateLoaded: Scenario = {
  name: 'warm-create-loaded',
  about: 'creates at a fixed rate while their sandboxes are replaced',
  run: runLoaded,
}
