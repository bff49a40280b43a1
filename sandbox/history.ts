import type { BindRequest } from '../domain/supervisor-protocol.ts'
import type { MessagePart, TurnReply, TurnStatus } from '../domain/turn.ts'

type Said = BindRequest['history'][number]

/** What is needed of a turn to tell it again; its row fits. */
export type ToldTurn = {
  status: TurnStatus
  parts: MessagePart[]
  reply: TurnReply | null
  /** null: it never began. */
  started_at: Date | null
}

const cut = (text: string, max: number): string => (text.length <= max ? text : `${text.slice(0, max)} […]`)

const shown = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value ?? ''))

const toolText = (part: MessagePart): string => {
  const state = part['state'] as { input?: unknown; output?: unknown; error?: unknown } | undefined
  const result = state?.output ?? state?.error ?? 'no result'
  return `[${shown(part['tool'])} ${cut(JSON.stringify(state?.input ?? {}), 500)}: ${cut(shown(result), 1_000)}]`
}

const textOf = (parts: MessagePart[]): string =>
  parts
    .flatMap((part) => {
      if (part.type === 'text' && typeof part['text'] === 'string') return [part['text']]
      if (part.type === 'tool') return [toolText(part)]
      return part.type === 'file' ? [`[file ${shown(part['filename'] ?? part['mime'])}]`] : []
    })
    .join('\n')

/**
 * An earlier conversation, oldest first, for a harness that was not there. Text and tool results, files only by name; the newest of it that fits,
 * so that it can be told at once and does not crowd out the work. A message that never began is not part of it: it will be sent, or was cancelled.
 */
export const retell = (turns: ToldTurn[], maxChars: number): Said[] => {
  const told: Said[] = []
  let left = maxChars
  for (const turn of turns.toReversed()) {
    if (turn.started_at === null || turn.status === 'running') continue
    const note = turn.status === 'done' ? '' : `\n[this message was ${turn.status}]`
    const both: Said[] = [{ role: 'user', text: textOf(turn.parts) + note }]
    if (turn.reply !== null) both.push({ role: 'assistant', text: textOf(turn.reply.parts) })
    const size = both.reduce((sum, { text }) => sum + text.length, 0)
    if (size > left && told.length > 0) break
    // Of a last exchange that does not fit the beginnings are told: rather a part than nothing.
    told.unshift(
      ...(size > left ? both.map(({ role, text }) => ({ role, text: cut(text, left / both.length) })) : both),
    )
    left -= size
  }
  return told
}
