import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import path from 'node:path'

/**
 * Which session of the agent a conversation is. It may become another one, where an agent takes the settings of a session only when it opens one; to
 * everybody else the conversation keeps its name. Kept below the home, so that it is there wherever the agent's own files are.
 */
export type SessionNames = {
  get(conversation: string): string | undefined
  set(conversation: string, session: string): void
  delete(conversation: string): void
}

export const openSessionNames = (home: string): SessionNames => {
  const file = path.join(home, '.lap', 'conversations.json')
  const read = (): Record<string, string> => {
    try {
      return JSON.parse(readFileSync(file, 'utf8')) as Record<string, string>
    } catch {
      return {}
    }
  }
  const write = (names: Record<string, string>): void => {
    mkdirSync(path.dirname(file), { recursive: true })
    writeFileSync(`${file}.new`, `${JSON.stringify(names)}\n`, { mode: 0o600 })
    renameSync(`${file}.new`, file)
  }
  return {
    get: (conversation) => read()[conversation],
    set: (conversation, session) => write({ ...read(), [conversation]: session }),
    delete(conversation) {
      const { [conversation]: _, ...rest } = read()
      write(rest)
    },
  }
}
