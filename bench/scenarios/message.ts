import type { Bench, Scenario } from '../bench.ts'
import { nowMs } from '../client.ts'
import { type Figure, inTurn } from '../stats.ts'

const POOL = 10

const run = async (bench: Bench): Promise<Figure[]> => {
  const ready = await bench.withPool('light', POOL)
  const session = await ready.open()
  await ready.quiet()
  const one = async (i: number): Promise<{ toModel: number; whole: number }> => {
    const marker = `message-${i}.`
    const asked = bench.servers.model.asked(marker)
    const begin = nowMs()
    await ready.client.send(session.id, marker)
    const whole = nowMs() - begin
    return { toModel: (await asked) - begin, whole }
  }
  await inTurn(bench.count(20, 5), (i) => one(-1 - i))
  const samples = await inTurn(bench.count(200, 20), one)
  await ready.client.end(session.id)
  return [
    { name: 'message → request at the model (light)', samples: samples.map(({ toModel }) => toModel) },
    { name: 'message → reply of three words (light)', samples: samples.map(({ whole }) => whole) },
  ]
}

export const message: Scenario = {
  name: 'message',
  about: 'a message and its reply, with a harness that costs nothing',
  run,
}
