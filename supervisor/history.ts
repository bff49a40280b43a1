import type { BindRequest } from '../domain/supervisor-protocol.ts'
import type { Harness } from './harness.ts'

const transcript = (history: BindRequest['history']): string =>
  [
    'The conversation so far. Its sandbox was lost, and with it uncommitted files; this one is new.',
    ...history.map(({ role, text }) => `<${role}>\n${text}\n</${role}>`),
  ].join('\n\n')

/** What was said before a session moved here. */
export type History = {
  /**
   * Tells it to the conversation, once; whoever calls again has nothing to wait for. Done by the first turn and not by the bind, because the first
   * message of a cold harness takes seconds.
   */
  tell(harness: Harness, conversation: string): Promise<void>
  /** Whether a message is only there for that: nobody said it. */
  holds(messageId: string): boolean
}

export const createHistory = (entries: BindRequest['history']): History => {
  let told = entries.length === 0
  let isOwn = false
  const ids = new Set<string>()
  return {
    async tell(harness, conversation) {
      if (told) return
      isOwn = true
      try {
        await harness.tell(conversation, transcript(entries))
        for (const { info } of await harness.messages(conversation)) ids.add(String(info['id']))
        told = true
      } finally {
        isOwn = false
      }
    },
    // While it is being told its id is not known yet, and there is no other message.
    holds: (messageId) => isOwn || ids.has(messageId),
  }
}
