import type { HarnessEvent } from '../../supervisor/harness.ts'

/**
 * What the bus says about one turn. A turn is over when its request is answered; its events come on another connection, often a little later: the last
 * are the completed message and then `session.idle`. (An idle alone proves nothing: an interrupted turn says it twice, an early one before its end.)
 */
export type TurnWatch = {
  hear(event: HarnessEvent): void
  /** Resolves when the bus has told the end of the turn whose answer is this message; false if it does not in time. */
  told(messageId: string): Promise<boolean>
  /** What went wrong, if the bus said so. */
  error(): string | null
}

/** The bus is some milliseconds behind; a busy machine needs longer. After this it has lost the end, over a broken connection. */
const lateMs = 3_000
/** opencode repeats a failed request for ever, after 2, 4, 8, 16 and then every 30 s. A gateway that has failed that often is left alone. */
const retriesMax = 4

type Failure = { name?: string; data?: { message?: string } }
type Properties = {
  sessionID?: string
  error?: Failure
  info?: { id?: string; time?: { completed?: number } }
  status?: { type?: string; attempt?: number; message?: string }
}

export const failureText = ({ name, data }: Failure): string =>
  data?.message ?? name ?? 'opencode reported an error without a reason'

export const createTurnWatch = (conversation: string, giveUp: () => void): TurnWatch => {
  const completed = new Set<string>()
  const closed = new Set<string>()
  let error: string | null = null
  let gaveUp = false
  let check = (): void => undefined

  return {
    hear({ type, properties }) {
      const { sessionID, info, status, ...rest } = properties as Properties
      if (sessionID !== conversation) return
      if (type === 'message.updated' && info?.id !== undefined && info.time?.completed !== undefined)
        completed.add(info.id)
      // What follows upon giving up is not the reason.
      if (type === 'session.error' && rest.error !== undefined && !gaveUp) error = failureText(rest.error)
      if (type === 'session.status' && status?.type === 'retry' && (status.attempt ?? 0) > retriesMax && !gaveUp) {
        error = `given up after ${retriesMax} repetitions: ${status.message ?? 'no reason given'}`
        gaveUp = true
        giveUp()
      }
      if (type !== 'session.idle') return
      for (const id of completed) closed.add(id)
      check()
    },
    told: (messageId) =>
      new Promise((resolve) => {
        const timer = setTimeout(() => resolve(false), lateMs)
        check = () => {
          if (!closed.has(messageId)) return
          clearTimeout(timer)
          resolve(true)
        }
        check()
      }),
    error: () => error,
  }
}
