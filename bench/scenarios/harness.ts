import type { Bench, HarnessId, Scenario } from '../bench.ts'
import { type Figure, inTurn } from '../stats.ts'
import { firstMessage, of, openCold, type Start } from './first-message.ts'

const POOL = 2

const PHASES: [keyof Start, string][] = [
  ['ready', 'request → ready'],
  ['accepted', 'first message → accepted'],
  ['prompt', 'first message → request at the model'],
  ['word', 'first message → first word read'],
  ['whole', 'request → first word read'],
]

const coldStarts = async (bench: Bench, id: HarnessId): Promise<Figure[]> => {
  const ready = await bench.withPool(id, 0)
  const { client, agentId } = ready
  const { model } = bench.servers
  const starts = await inTurn(bench.count(10, 2), async () => {
    await ready.quiet()
    return firstMessage({ client, model }, { open: () => openCold(client, agentId) })
  })
  return PHASES.map(([phase, text]) => {
    const name = `cold ${id}: ${text}`
    return { name, cold: name, samples: of(starts, phase) }
  })
}

const warmStarts = async (bench: Bench, id: HarnessId): Promise<Figure[]> => {
  const ready = await bench.withPool(id, POOL)
  const { client, agentId } = ready
  const { model } = bench.servers
  const sample = (pause?: () => Promise<void>): Promise<Start[]> =>
    inTurn(bench.count(10, 2), async () => {
      await ready.quiet()
      return firstMessage({ client, model }, { open: () => ready.open(), ...(pause === undefined ? {} : { pause }) })
    })
  const atOnce = await sample()
  // As by somebody who thinks before typing: the replacement of their sandbox has booted.
  const later = await sample(ready.quiet)
  await client.call('PATCH', `/agents/${agentId}`, { prompt: 'Answer in few words.' })
  const prompted = await sample()
  const beside = (name: string, phase: keyof Start, starts: Start[]): Figure => ({
    name,
    cold: `cold ${id}: ${PHASES.find(([one]) => one === phase)?.[1]}`,
    samples: of(starts, phase),
  })
  return [
    ...PHASES.map(([phase, text]) => beside(`warm ${id}: ${text}`, phase, atOnce)),
    beside('  sent when the replacement has booted: → request at the model', 'prompt', later),
    beside('  sent when the replacement has booted: → first word read', 'word', later),
    beside('  agent with a system prompt: request → ready', 'ready', prompted),
    beside('  agent with a system prompt: → request at the model', 'prompt', prompted),
    beside('  agent with a system prompt: request → first word read', 'whole', prompted),
  ]
}

/** What warm saves of a harness, phase by phase: the same start without a pool and from one. */
export const harnessStart = (id: HarnessId): Scenario => ({
  name: id,
  about: `session and first message with the real ${id}, without a pool and from one`,
  run: async (bench) => [...(await coldStarts(bench, id)), ...(await warmStarts(bench, id))],
})
