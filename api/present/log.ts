import type { SessionRow } from '../../db/entities/session.ts'
import type { TurnRow } from '../../db/entities/turn.ts'
import { isEnded } from '../../domain/session.ts'
import type { SessionEvent } from '../../domain/events.ts'
import type { MessagePart } from '../../domain/turn.ts'
import type { LogEntry } from '../schemas/message.ts'

const detailMax = 600
const toolDetailMax = 200

const cut = (text: string, max: number): string => (text.length > max ? `${text.slice(0, max - 1)}…` : text)

const textOf = (part: MessagePart): string => (typeof part['text'] === 'string' ? part['text'] : '')

const userText = (parts: MessagePart[]): string =>
  parts.map((part) => (part.type === 'text' ? textOf(part) : `[${part.type}]`)).join('\n')

const seconds = (from: Date | null, to: Date | null): string[] =>
  from === null || to === null ? [] : [`${((to.getTime() - from.getTime()) / 1_000).toFixed(1)}s`]

const toolEntry = (part: MessagePart): Pick<LogEntry, 'kind' | 'title' | 'detail' | 'status'> => {
  const state = (part['state'] ?? {}) as {
    status?: string
    title?: string
    input?: unknown
    output?: unknown
    error?: unknown
  }
  const said = state.error ?? state.output ?? state.input
  return {
    kind: 'tool',
    title: [part['tool'], state.title].filter((text) => typeof text === 'string' && text !== '').join(': ') || 'tool',
    ...(said === undefined
      ? {}
      : { detail: cut(typeof said === 'string' ? said : JSON.stringify(said), toolDetailMax) }),
    ...(state.status === undefined ? {} : { status: state.status }),
  }
}

const replyEntries = (turn: TurnRow): LogEntry[] => {
  const parts = turn.reply?.parts ?? []
  const lastText = parts.findLastIndex((part) => part.type === 'text')
  const at = (turn.finished_at ?? turn.created_at).toISOString()
  const tokens = turn.usage === null ? [] : [`${turn.usage.output_tokens} tok`]
  const meta = [...seconds(turn.started_at, turn.finished_at), ...tokens].join(' · ')
  return parts.flatMap((part, index): LogEntry[] => {
    const id = `${turn.id}/${index}`
    if (part.type === 'tool') return [{ id, at, ...toolEntry(part) }]
    if (part.type === 'reasoning')
      return [{ id, at, kind: 'thinking', title: 'Thinking', detail: cut(textOf(part), detailMax) }]
    if (part.type !== 'text' || textOf(part) === '') return []
    if (index !== lastText)
      return [{ id, at, kind: 'assistant', title: 'Assistant', detail: cut(textOf(part), detailMax) }]
    return [
      {
        id,
        at,
        kind: 'response',
        title: 'Response',
        detail: cut(textOf(part), detailMax),
        ...(meta === '' ? {} : { meta }),
      },
    ]
  })
}

const turnEntries = (turn: TurnRow): LogEntry[] => {
  const user: LogEntry = {
    id: turn.id,
    kind: 'user',
    at: turn.created_at.toISOString(),
    title: 'User',
    detail: cut(userText(turn.parts), detailMax),
    status: turn.status,
  }
  const replies = replyEntries(turn)
  if (turn.error === null) return [user, ...replies]
  const failed: LogEntry = {
    id: `${turn.id}/error`,
    kind: 'response',
    at: (turn.finished_at ?? turn.created_at).toISOString(),
    title: turn.status === 'interrupted' ? 'Interrupted' : 'Failed',
    detail: cut(turn.error.message, detailMax),
    status: turn.status,
  }
  return [user, ...replies, failed]
}

/** A session's story in a few lines each: the shape that command-line clients print. */
export const presentLog = (session: SessionRow, turns: TurnRow[], moves: SessionEvent[]): LogEntry[] => {
  const created: LogEntry = {
    id: `${session.id}/created`,
    kind: 'created',
    at: session.created_at.toISOString(),
    title: 'Session created',
    meta: `${session.spawn_mode} · ${session.claim_outcome}`,
  }
  const recovered = moves.map((move): LogEntry => ({
    id: `${session.id}/${move.seq}`,
    kind: 'recovered',
    at: move.created_at.toISOString(),
    title: 'Moved to a new sandbox',
    detail: cut(typeof move.data['reason'] === 'string' ? move.data['reason'] : '', detailMax),
  }))
  const middle = [...turns.flatMap(turnEntries), ...recovered].toSorted((a, b) => a.at.localeCompare(b.at))
  if (!isEnded(session.status)) return [created, ...middle]
  const ended: LogEntry = {
    id: `${session.id}/ended`,
    kind: 'ended',
    at: (session.ended_at ?? session.created_at).toISOString(),
    title: session.status === 'failed' ? 'Session failed' : 'Session ended',
    ...(session.failure_reason === null ? {} : { detail: cut(session.failure_reason, detailMax) }),
    status: session.end_reason ?? session.status,
  }
  return [created, ...middle, ended]
}
