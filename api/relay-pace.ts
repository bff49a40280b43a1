import { relayYieldMs } from '../domain/limits.ts'
import type { ApiDeps } from './deps.ts'

/** @returns to be called when a create is answered, or from where on it waits for the relay; further calls do nothing */
export type RelayPace = { begin(): () => void }

/**
 * Lets the creates of a burst be answered before their workflows are started and the pool is refilled: both take the same processor, and a
 * user waits only for the first. A create that is alone is not held up; in a burst the relay waits `relayYieldMs` at most.
 */
export const paceRelay = ({ outbox }: Pick<ApiDeps, 'outbox'>): RelayPace => {
  let inFlight = 0
  let late: NodeJS.Timeout | undefined
  const kick = (): void => {
    clearTimeout(late)
    late = undefined
    outbox.kick()
  }
  return {
    begin() {
      let over = false
      inFlight++
      return () => {
        if (over) return
        over = true
        inFlight--
        if (inFlight === 0) kick()
        else late ??= setTimeout(kick, relayYieldMs).unref()
      }
    },
  }
}
