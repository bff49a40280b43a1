import { openTerminal } from '../../test/terminal/client.ts'
import { PROMPTS } from '../../test/terminal/prompts.ts'
import type { Bench, Scenario, TerminalId } from '../bench.ts'
import { type Client, nowMs, type Session } from '../client.ts'
import { type Figure, inTurn } from '../stats.ts'
import { openCold } from './first-message.ts'

const POOL = 2

type Start = {
  /** Request → ready. */
  ready: number
  /** Request → the program's prompt on the screen of a client that opened a terminal as soon as it was ready. */
  prompt: number
}

/** Opens a session and its terminal, waits for the prompt, and ends it. */
const untilPrompt = async (client: Client, id: TerminalId, open: () => Promise<Session>): Promise<Start> => {
  const begin = nowMs()
  const session = await open()
  const ready = nowMs()
  const { url } = await client.call<{ url: string }>('POST', `/sessions/${session.id}/tty-ticket`)
  const terminal = await openTerminal(`${client.url.replace('http', 'ws')}${url}`)
  await terminal.until(PROMPTS[id])
  const shown = nowMs()
  await terminal[Symbol.asyncDispose]()
  await client.end(session.id)
  return { ready: ready - begin, prompt: shown - begin }
}

const figures = (id: TerminalId, start: 'warm' | 'cold', starts: Start[]): Figure[] =>
  (['ready', 'prompt'] as const).map((phase) => {
    const text = phase === 'ready' ? 'request → ready' : 'request → prompt on the screen'
    return { name: `${start} ${id}: ${text}`, cold: `cold ${id}: ${text}`, samples: starts.map((one) => one[phase]) }
  })

const starts = async (bench: Bench, id: TerminalId, pool: number): Promise<Start[]> => {
  const ready = await bench.withPool(id, pool)
  const { client, agentId } = ready
  return inTurn(bench.count(10, 2), async () => {
    await ready.quiet()
    return untilPrompt(client, id, () => (pool === 0 ? openCold(client, agentId) : ready.open()))
  })
}

/** What warm saves of a program that is typed into: the same start without a pool and from one. */
export const terminalStart = (id: TerminalId): Scenario => ({
  name: id,
  about: `session and terminal with the real ${id}, without a pool and from one`,
  run: async (bench) => [
    ...figures(id, 'cold', await starts(bench, id, 0)),
    ...figures(id, 'warm', await starts(bench, id, POOL)),
  ],
})
