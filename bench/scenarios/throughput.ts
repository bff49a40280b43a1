import type { Bench, Ready, Scenario } from '../bench.ts'
import { assertWarm } from '../bench.ts'
import { atOnce, type Figure, inTurn } from '../stats.ts'

const CALLERS = 8

/** Callers that ask again as soon as they are answered, until the pool is empty. */
const drain = async (ready: Ready, size: number): Promise<{ perSecond: number; each: number[] }> => {
  let left = size
  const ids: string[] = []
  const begin = performance.now()
  const each = await atOnce(CALLERS, async (caller) => {
    const client = ready.apis[caller % 2] ?? ready.client
    const samples: number[] = []
    while (left-- > 0) {
      const asked = performance.now()
      ids.push(assertWarm(await client.session(ready.agentId)).id)
      samples.push(performance.now() - asked)
    }
    return samples
  })
  const perSecond = size / ((performance.now() - begin) / 1_000)
  await atOnce(ids.length, (i) => ready.client.end(ids[i] ?? ''))
  return { perSecond, each: each.flat() }
}

const run = async (bench: Bench): Promise<Figure[]> => {
  const size = bench.count(100, 10)
  const ready = await bench.withPool('light', size)
  const drains = await inTurn(bench.count(2, 1), async () => {
    await ready.quiet()
    return drain(ready, size)
  })
  await ready.quiet()
  return [
    {
      name: `warm creates, ${CALLERS} callers`,
      unit: 'per second',
      samples: drains.map(({ perSecond }) => perSecond),
    },
    { name: `warm create, ${CALLERS} callers`, samples: drains.flatMap(({ each }) => each) },
  ]
}

export const throughput: Scenario = { name: 'throughput', about: 'warm creates by callers that never rest', run }
