import { errorText } from '../domain/errors.ts'

/**
 * Starts the harness of a bound session again after it has died. At once, so that the next turn need not wait for it; but one that dies again without
 * having had a turn is only started when a turn needs it.
 */
export type Restarter = {
  count(): number
  /** Whether the harness is there, as far as is known. */
  isUp(): boolean
  died(): void
  /** For a turn: resolves when the harness is there, which may take another start. Rejects when it does not start. */
  needed(): Promise<void>
}

export type RestarterDeps = {
  /** Ends what the dead one has left, and starts a new one. */
  start(): Promise<void>
  onRestarted(): void
  log(line: string): void
}

export const createRestarter = ({ start, onRestarted, log }: RestarterDeps): Restarter => {
  let count = 0
  let isUp = true
  let usedSince = true
  let starting: Promise<void> | null = null

  const once = async (): Promise<void> => {
    try {
      await start()
      isUp = true
      count += 1
      onRestarted()
    } catch (error) {
      log(`the harness does not start again: ${errorText(error)}`)
      throw error
    } finally {
      starting = null
    }
  }
  const restart = (): Promise<void> => (starting ??= once())

  return {
    count: () => count,
    isUp: () => isUp,
    died() {
      isUp = false
      if (!usedSince) return
      usedSince = false
      // After the dead turn has been closed, so that the journal tells it in order.
      setImmediate(() => void restart().catch(() => undefined))
    },
    async needed() {
      usedSince = true
      if (isUp) return
      await restart().catch(() => restart())
    },
  }
}
