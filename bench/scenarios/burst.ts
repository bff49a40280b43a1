import type { Bench, Ready, Scenario } from '../bench.ts'
import { assertWarm } from '../bench.ts'
import { atOnce, type Figure, inTurn } from '../stats.ts'

/** Everybody at once, over both APIs; everybody gets a sandbox of their own. */
const burst = async (ready: Ready, size: number): Promise<{ wholeMs: number; each: number[]; ids: string[] }> => {
  const begin = performance.now()
  const sessions = await atOnce(size, async (i) => {
    const client = ready.apis[i % 2] ?? ready.client
    const session = assertWarm(await client.session(ready.agentId))
    return { ms: performance.now() - begin, session }
  })
  const wholeMs = performance.now() - begin
  const sandboxes = new Set(sessions.map(({ session }) => session.task_arn))
  if (sandboxes.size !== size) throw new Error(`${size} sessions got ${sandboxes.size} sandboxes`)
  return { wholeMs, each: sessions.map(({ ms }) => ms), ids: sessions.map(({ session }) => session.id) }
}

/** A pool of hundreds takes minutes to fill again, and one such burst is samples enough. */
const run = async (bench: Bench, whole: number): Promise<Figure[]> => {
  const size = bench.count(whole, 10)
  const ready = await bench.withPool('light', size)
  const memory: { api: number; worker: number }[] = []
  const bursts = await inTurn(bench.count(whole > 100 ? 1 : 3, 2), async () => {
    await ready.quiet()
    const result = await burst(ready, size)
    // With all of them idle and the pool full behind them.
    await ready.quiet()
    memory.push(await ready.memory())
    await atOnce(size, (i) => ready.client.end(result.ids[i] ?? ''))
    return result
  })
  await ready.quiet()
  return [
    {
      name: `${size} creates at once: all ready`,
      samples: bursts.map(({ wholeMs }) => wholeMs),
      ...(whole === 100 ? { reach: { max: 1_000 } } : {}),
    },
    { name: `${size} creates at once: each one`, samples: bursts.flatMap(({ each }) => each) },
    {
      name: `memory of one API, ${size} sessions idle`,
      unit: 'MB',
      samples: memory.map(({ api }) => api),
    },
    { name: `memory of the worker, ${size} sessions idle`, unit: 'MB', samples: memory.map(({ worker }) => worker) },
  ]
}

/** As many creates at once as the pool has sandboxes. */
export const burstOf = (size: number): Scenario => ({
  name: `burst-${size}`,
  about: `${size} creates at once, from a pool of as many`,
  run: (bench) => run(bench, size),
})
