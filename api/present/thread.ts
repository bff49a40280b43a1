import type { TurnRow } from '../../db/entities/turn.ts'
import type { Message } from '../schemas/message.ts'

const time = (turn: TurnRow): Record<string, number> => ({
  created: turn.created_at.getTime(),
  ...(turn.finished_at === null ? {} : { completed: turn.finished_at.getTime() }),
})

const userMessage = (sessionId: string, turn: TurnRow): Message => ({
  info: {
    id: turn.id,
    sessionID: sessionId,
    role: 'user',
    status: turn.status,
    time: { created: turn.created_at.getTime() },
    ...(turn.error === null ? {} : { error: turn.error }),
    ...(turn.usage === null ? {} : { usage: turn.usage }),
  },
  parts: turn.parts,
})

const assistantMessage = (sessionId: string, turn: TurnRow): Message[] => {
  if (turn.reply === null) return []
  const { info, parts } = turn.reply
  return [
    { info: { id: `reply-${turn.id}`, time: time(turn), ...info, role: 'assistant', sessionID: sessionId }, parts },
  ]
}

/** The conversation as stored: each message of the user followed by the harness' reply to it. Ids of user messages are those of turns. */
export const presentThread = (session: { id: string }, turns: TurnRow[]): Message[] =>
  turns.flatMap((turn) => [userMessage(session.id, turn), ...assistantMessage(session.id, turn)])
