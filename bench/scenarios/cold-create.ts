import type { Bench, Scenario } from '../bench.ts'
import { elapsed, type Figure, inTurn } from '../stats.ts'

/** No pool: each create makes its sandbox and waits for it. */
const run = async (bench: Bench): Promise<Figure[]> => {
  const ready = await bench.withPool('light', 0)
  const samples = await inTurn(bench.count(30, 3), async () => {
    await ready.quiet()
    let id = ''
    const ms = await elapsed(async () => {
      const session = await ready.client.session(ready.agentId, '?wait=ready')
      if (session.status !== 'ready' || session.spawn_mode !== 'cold')
        throw new Error(`expected a cold session that is ready, got ${session.status} ${session.spawn_mode}`)
      id = session.id
    })
    await ready.client.end(id)
    return ms
  })
  return [{ name: 'cold create: request → ready', samples, base: 'cold' }]
}

export const coldCreate: Scenario = {
  name: 'cold-create',
  about: 'one create after the other without a pool',
  run,
}
