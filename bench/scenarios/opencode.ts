import type { Bench, Ready, Scenario } from '../bench.ts'
import type { Session } from '../client.ts'
import { type Figure, inTurn } from '../stats.ts'
import { firstMessage, of, openCold } from './first-message.ts'

const POOL = 2

const runWarm = async (bench: Bench): Promise<Figure[]> => {
  const ready: Ready = await bench.withPool('opencode', POOL)
  const { client } = ready
  const { model } = bench.servers
  const open = (): Promise<Session> => ready.open()
  const atOnce = await inTurn(bench.count(10, 2), async () => {
    await ready.quiet()
    return firstMessage({ client, model }, { open })
  })
  // As by somebody who thinks before typing: the replacement of their sandbox has booted.
  const later = await inTurn(bench.count(10, 2), async () => {
    await ready.quiet()
    return firstMessage({ client, model }, { open, pause: ready.quiet })
  })
  return [
    {
      name: 'warm opencode: request → ready',
      samples: [...of(atOnce, 'ready'), ...of(later, 'ready')],
      reach: { p50: 20, p95: 50, p99: 90 },
    },
    {
      name: 'warm opencode: first message → request at the model',
      samples: of(later, 'prompt'),
      reach: { p50: 350 },
    },
    {
      name: '  sent at once, while the replacement boots',
      samples: of(atOnce, 'prompt'),
      reach: { p50: 350 },
    },
    { name: 'warm opencode: first message → first word read', samples: of(later, 'word') },
    { name: '  sent at once, while the replacement boots', samples: of(atOnce, 'word') },
    { name: 'warm opencode: request → first word read', samples: of(atOnce, 'whole') },
  ]
}

const runCold = async (bench: Bench): Promise<Figure[]> => {
  const ready = await bench.withPool('opencode', 0)
  const { client, agentId } = ready
  const { model } = bench.servers
  const open = (): Promise<Session> => openCold(client, agentId)
  const starts = await inTurn(bench.count(10, 2), async () => {
    await ready.quiet()
    return firstMessage({ client, model }, { open })
  })
  return [
    { name: 'cold opencode: request → ready', base: 'cold', samples: of(starts, 'ready'), reach: { p50: 5_000 } },
    { name: 'cold opencode: first message → request at the model', samples: of(starts, 'prompt') },
    { name: 'cold opencode: first message → first word read', samples: of(starts, 'word') },
    { name: 'cold opencode: request → first word read', samples: of(starts, 'whole') },
  ]
}

export const warmOpencode: Scenario = {
  name: 'first-prompt',
  about: 'session and first message with the real opencode, warm',
  run: runWarm,
}
export const coldOpencode: Scenario = {
  name: 'cold-start',
  about: 'session and first message with the real opencode, without a pool',
  run: runCold,
}
