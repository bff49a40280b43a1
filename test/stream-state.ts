import type { Snapshot } from '../api/schemas/snapshot.ts'
import { createReplyCollector } from '../domain/reply.ts'
import type { ReplySoFar } from '../domain/reply.ts'
import type { MessagePart } from '../domain/turn.ts'
import type { WireFrame } from './event-stream.ts'

type ShownTurn = {
  id: string
  status: string
  error: string | null
  parts: MessagePart[]
  reply: { id: unknown; parts: MessagePart[] } | null
}

/** What a client shows of a session. Two clients that know the same show the same. */
export type ClientView = {
  seq: number
  session: { status: string; attempt: number; end_reason: string | null }
  turns: ShownTurn[]
  running: ({ id: string } & ReplySoFar) | null
  queued: string[]
}

type Data = { turn_id: string; status: string; error: { code: string } | null; parts: MessagePart[]; attempt: number; end_reason: string; code?: string } // prettier-ignore
type Frame = {
  seq: number
  turn_id?: string | null
  snapshot?: Snapshot
  event?: { type: string; properties: Record<string, unknown>; data: Data }
}

const codeOf = (error: unknown): string | null => (error as { code: string } | null | undefined)?.code ?? null

/** Puts together what a client shows, from the frames of `…/events`, which begin with the log's start, or with a snapshot. */
export const createClientState = (from: 'log' | 'snapshot') => {
  const session: ClientView['session'] = { status: 'creating', attempt: 0, end_reason: null }
  const turns = new Map<string, ShownTurn>()
  let seq = 0
  let running: { id: string; reply: ReturnType<typeof createReplyCollector> } | null = null

  const begin = ({ session: shown, messages, turn }: Snapshot): void => {
    Object.assign(session, { status: shown.status, attempt: shown.attempt, end_reason: shown.end_reason })
    let last: ShownTurn | undefined
    for (const { info, parts } of messages)
      if (info['role'] === 'user') {
        last = {
          id: String(info['id']),
          status: String(info['status']),
          error: codeOf(info['error']),
          parts,
          reply: null,
        }
        turns.set(last.id, last)
      } else if (last !== undefined) last.reply = { id: info['id'], parts }
    running = turn === null ? null : { id: turn.turn_id, reply: createReplyCollector(turn) }
  }

  const finish = ({ turn_id, status, error }: Data): void => {
    const turn = turns.get(turn_id)
    if (turn === undefined) return
    const said = running?.id === turn_id ? running.reply.reply() : null
    // What is cut off leaves no reply in the thread.
    const kept = status !== 'interrupted' && codeOf(error) !== 'session_ended' ? said : null
    Object.assign(turn, {
      status,
      error: codeOf(error),
      reply: kept === null ? null : { id: kept.info['id'], parts: kept.parts },
    })
    if (running?.id === turn_id) running = null
  }

  const own = (type: string, data: Data): void => {
    if (type === 'session.ready') session.status = 'ready'
    if (type === 'session.ready' || type === 'sandbox_moved') session.attempt = data.attempt
    if (type === 'session.ended') {
      session.status = data.code === undefined ? 'dead' : 'failed'
      session.end_reason = data.end_reason
    }
    const turn = turns.get(data.turn_id)
    if (type === 'turn.queued')
      turns.set(data.turn_id, { id: data.turn_id, status: 'queued', error: null, parts: data.parts, reply: null })
    if (type === 'turn.started' && turn !== undefined) {
      turn.status = 'running'
      running = { id: turn.id, reply: createReplyCollector() }
    }
    if (type === 'turn.finished') finish(data)
  }

  return {
    apply({ id, data }: WireFrame): void {
      const frame = data as unknown as Frame
      if (id === null) return
      const begins = from === 'snapshot' && seq === 0
      if (begins !== (data.type === 'snapshot') || (!begins && id !== seq + 1))
        throw new Error(`${data.type} ${id} came after ${seq}`)
      seq = id
      if (frame.snapshot !== undefined) begin(structuredClone(frame.snapshot))
      if (frame.event === undefined) return
      const { type, properties, data: ownData } = structuredClone(frame.event)
      if (data.type === 'session_event') own(type, ownData)
      else if (running !== null && frame.turn_id === running.id) running.reply.hear({ type, properties })
    },
    view: (): ClientView =>
      structuredClone({
        seq,
        session,
        turns: [...turns.values()],
        running: running === null ? null : { id: running.id, ...running.reply.soFar() },
        queued: [...turns.values()].filter(({ status }) => status === 'queued').map(({ id }) => id),
      }),
  }
}
