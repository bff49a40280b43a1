import type { History } from '../domain/supervisor-protocol.ts'
import type { Harness } from './harness.ts'

const NEW = 'The conversation so far. Its sandbox was lost, and with it uncommitted files; this one is new.'
const SINCE =
  'This is what was said since. The sandbox of this conversation was lost, and what was changed in it meanwhile; this one has its files as they were before.'

const transcript = (before: string[], history: History): string =>
  [...before, ...history.map(({ role, text }) => `<${role}>\n${text}\n</${role}>`)].join('\n\n')

/** What a conversation that comes from another sandbox has to be told, once. null: nothing. */
export const toTell = {
  whole: (history: History): string | null => (history.length === 0 ? null : transcript([NEW], history)),
  /** @param moved where the workspace was and is, if that differs */
  since(history: History, moved: { from: string; to: string } | null): string | null {
    const place = moved === null ? [] : [`The workspace is ${moved.to} now; before it was ${moved.from}.`]
    const intro = [...(history.length === 0 ? [] : [SINCE]), ...place]
    return intro.length === 0 ? null : transcript(intro, history)
  },
}

/** What was said before a session moved here. */
export type Telling = {
  /**
   * Tells it to the conversation, once; whoever calls again has nothing to wait for. Done by the first turn and not by the bind, because the first
   * message of a cold harness takes seconds.
   */
  tell(harness: Harness, conversation: string): Promise<void>
  /** Whether a message is only there for that: nobody said it. */
  holds(messageId: string): boolean
}

export const createTelling = (text: string | null): Telling => {
  let told = text === null
  let isOwn = false
  const ids = new Set<string>()
  return {
    async tell(harness, conversation) {
      if (told || text === null) return
      isOwn = true
      try {
        const before = new Set((await harness.messages(conversation)).map(({ info }) => info['id']))
        await harness.tell(conversation, text)
        for (const { info } of await harness.messages(conversation))
          if (!before.has(info['id'])) ids.add(String(info['id']))
        told = true
      } finally {
        isOwn = false
      }
    },
    // While it is being told its id is not known yet, and there is no other message.
    holds: (messageId) => isOwn || ids.has(messageId),
  }
}
