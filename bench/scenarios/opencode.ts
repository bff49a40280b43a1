import type { Bench, Ready, Scenario } from '../bench.ts'
import { type Client, deltaOf, nowMs, type Session } from '../client.ts'
import type { BenchModel } from '../model.ts'
import { type Figure, inTurn } from '../stats.ts'

const POOL = 2

type Start = {
  /** Request → ready. */
  ready: number
  /** First message → request at the model. */
  prompt: number
  /** First message → first word at the reader. */
  word: number
  /** Request → first word at the reader. */
  whole: number
}

/** Opens a session, sends the first message as soon as it is ready, and reads until the first word. */
const start = async (
  { client, model }: { client: Client; model: BenchModel },
  open: () => Promise<Session>,
): Promise<Start> => {
  const begin = nowMs()
  const session = await open()
  const ready = nowMs()
  const marker = `first-${session.id}`
  const asked = model.asked(marker)
  let word = Number.NaN
  const reading = client.events(session.id, (event) => {
    if (deltaOf(event) === null) return false
    word = event.at
    return true
  })
  const sentAt = nowMs()
  const [prompt] = await Promise.all([asked, reading, client.send(session.id, marker)])
  await client.end(session.id)
  return { ready: ready - begin, prompt: prompt - sentAt, word: word - sentAt, whole: word - begin }
}

const of = (starts: Start[], what: keyof Start): number[] => starts.map((one) => one[what])

const runWarm = async (bench: Bench): Promise<Figure[]> => {
  const ready: Ready = await bench.withPool('opencode', POOL)
  const { client } = ready
  const { model } = bench.servers
  const starts = await inTurn(bench.count(20, 3), async () => {
    await ready.quiet()
    return start({ client, model }, () => ready.open())
  })
  return [
    { name: 'warm opencode: request → ready', samples: of(starts, 'ready'), reach: { p50: 20, p95: 50, p99: 90 } },
    {
      name: 'warm opencode: first message → request at the model',
      samples: of(starts, 'prompt'),
      reach: { p50: 350 },
    },
    { name: 'warm opencode: first message → first word read', samples: of(starts, 'word') },
    { name: 'warm opencode: request → first word read', samples: of(starts, 'whole') },
  ]
}

const runCold = async (bench: Bench): Promise<Figure[]> => {
  const ready = await bench.withPool('opencode', 0)
  const { client, agentId } = ready
  const { model } = bench.servers
  const open = async (): Promise<Session> => {
    const session = await client.session(agentId, '?wait=ready')
    if (session.status !== 'ready' || session.spawn_mode !== 'cold')
      throw new Error(`expected a cold session, got ${session.status} ${session.spawn_mode}`)
    return session
  }
  const starts = await inTurn(bench.count(10, 2), async () => {
    await ready.quiet()
    return start({ client, model }, open)
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
