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

type Steps = {
  open: () => Promise<Session>
  /** Between the session and its first message. */
  pause?: () => Promise<void>
}

/** Opens a session, sends the first message, and reads until the first word. */
const start = async (
  { client, model }: { client: Client; model: BenchModel },
  { open, pause }: Steps,
): Promise<Start> => {
  const begin = nowMs()
  const session = await open()
  const ready = nowMs()
  await pause?.()
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
  const open = (): Promise<Session> => ready.open()
  const atOnce = await inTurn(bench.count(10, 2), async () => {
    await ready.quiet()
    return start({ client, model }, { open })
  })
  // As by somebody who thinks before typing: the replacement of their sandbox has booted.
  const later = await inTurn(bench.count(10, 2), async () => {
    await ready.quiet()
    return start({ client, model }, { open, pause: ready.quiet })
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
  const open = async (): Promise<Session> => {
    const session = await client.session(agentId, '?wait=ready')
    if (session.status !== 'ready' || session.spawn_mode !== 'cold')
      throw new Error(`expected a cold session, got ${session.status} ${session.spawn_mode}`)
    return session
  }
  const starts = await inTurn(bench.count(10, 2), async () => {
    await ready.quiet()
    return start({ client, model }, { open })
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
