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
  session: {
    status: string
    attempt: number
    end_reason: string | null
    max_turns: number | null
    limit_reached: string | null
  }
  turns: ShownTurn[]
  running: ({ id: string } & ReplySoFar) | null
  queued: string[]
  /** What waits for an answer. */
  permissions: string[]
}

type Data = { permission: { id: string }; permission_id: string; limit: string; limit_reached: string | null; max_turns: number | null; turn_id: string; status: string; error: { code: string } | null; parts: MessagePart[]; attempt: number; end_reason: string; code?: string } // prettier-ignore
type Frame = {
  seq: number
  turn_id?: string | null
  snapshot?: Snapshot
  event?: { type: string; properties: Record<string, unknown>; data: Data }
}

const codeOf = (error: unknown): string | null => (error as { code: string } | null | undefined)?.code ?? null

/**
 * Puts together what a client shows, from the frames of `…/events`, which begin with the log's start, or with a snapshot.
 * @param earlier what `…/messages` gives, for the log of a fork: what was said before it is not in its log
 */
export const createClientState = (from: 'log' | 'snapshot', earlier: Snapshot['messages'] = []) => {
  const session: ClientView['session'] = {
    status: 'creating',
    attempt: 0,
    end_reason: null,
    max_turns: null,
    limit_reached: null,
  }
  const permissions = new Set<string>()
  const turns = new Map<string, ShownTurn>()
  let seq = 0
  let running: { id: string; reply: ReturnType<typeof createReplyCollector> } | null = null

  const begin = ({ session: shown, messages, turn, permissions: asked }: Snapshot): void => {
    const { status, attempt, end_reason, max_turns, limit_reached } = shown
    Object.assign(session, { status, attempt, end_reason, max_turns, limit_reached })
    for (const { id } of asked) permissions.add(id)
    if (shown.needs_input !== asked.length > 0) throw new Error('the session does not say what its permissions say')
    tell(messages)
    running = turn === null ? null : { id: turn.turn_id, reply: createReplyCollector(turn) }
  }

  const tell = (messages: Snapshot['messages']): void => {
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
  }

  const finish = ({ turn_id, status, error }: Data): void => {
    const turn = turns.get(turn_id)
    if (turn === undefined) return
    if (codeOf(error) === 'deleted') return void turns.delete(turn_id)
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

  /** Before the others that wait, behind all that has begun. */
  const putFirst = (id: string): void => {
    const all = [...turns.values()]
    const order = [
      ...all.filter(({ status }) => status !== 'queued'),
      ...all.filter((turn) => turn.id === id),
      ...all.filter((turn) => turn.status === 'queued' && turn.id !== id),
    ]
    turns.clear()
    for (const turn of order) turns.set(turn.id, turn)
  }

  const own = (type: string, data: Data): void => {
    if (type === 'session.ready') session.status = 'ready'
    if (type === 'session.ready' || type === 'sandbox_moved') session.attempt = data.attempt
    if (type === 'session.forked') tell(earlier)
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
    if (type === 'turn.edited' && turn !== undefined) turn.parts = data.parts
    if (type === 'turn.moved') putFirst(data.turn_id)
    if (type === 'permission.asked') permissions.add(data.permission.id)
    if (type === 'permission.replied' || type === 'permission.expired') permissions.delete(data.permission_id)
    if (type === 'session.limit_reached') session.limit_reached = data.limit
    if (type === 'session.updated')
      Object.assign(session, { max_turns: data.max_turns, limit_reached: data.limit_reached })
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
        permissions: [...permissions],
      }),
  }
}
