import { type Client, deltaOf, nowMs, type Session, type StreamEvent } from '../client.ts'
import type { BenchModel } from '../model.ts'

/** The parts of a start, in milliseconds. */
export type Start = {
  /** Request → ready. */
  ready: number
  /** First message → stored, as a reader of the session's events sees it. */
  accepted: number
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

/** Opens a session, sends the first message, reads until the first word, and ends it. */
export const firstMessage = async (
  { client, model }: { client: Client; model: BenchModel },
  { open, pause }: Steps,
): Promise<Start> => {
  const begin = nowMs()
  const session = await open()
  const ready = nowMs()
  await pause?.()
  const marker = `first-${session.id}`
  const asked = model.asked(marker)
  let accepted = Number.NaN
  let word = Number.NaN
  const opened = Promise.withResolvers<void>()
  const onEvent = (event: StreamEvent): boolean => {
    if (event.data.event?.type === 'turn.queued') accepted = event.at
    if (deltaOf(event) === null) return false
    word = event.at
    return true
  }
  const reading = client.events(session.id, onEvent, { onOpen: opened.resolve })
  await Promise.race([opened.promise, reading])
  const sentAt = nowMs()
  const [prompt] = await Promise.all([asked, reading, client.send(session.id, marker)])
  await client.end(session.id)
  if (Number.isNaN(accepted + word)) throw new Error(`the events of session ${session.id} lack its message or its word`)
  return {
    ready: ready - begin,
    accepted: accepted - sentAt,
    prompt: prompt - sentAt,
    word: word - sentAt,
    whole: word - begin,
  }
}

export const of = (starts: Start[], what: keyof Start): number[] => starts.map((one) => one[what])

/** A session without a pool. @throws Error when it is not ready, or came from a pool */
export const openCold = async (client: Client, agentId: string): Promise<Session> => {
  const session = await client.session(agentId, '?wait=ready')
  if (session.status === 'ready' && session.spawn_mode === 'cold') return session
  throw new Error(`expected a cold session, got ${session.status} ${session.spawn_mode}`)
}
