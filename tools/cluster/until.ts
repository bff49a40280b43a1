import { setTimeout as sleep } from 'node:timers/promises'

const READY_TIMEOUT_MS = 60_000
const READY_POLL_MS = 50

/**
 * Asks until it is so; an error is a no.
 * @param assertPossible throws when it cannot become so any more
 * @throws Error that says what was waited for, and the last reason
 */
export const until = async (
  what: string,
  isSo: () => Promise<boolean>,
  assertPossible: () => void = () => {},
): Promise<void> => {
  const deadline = Date.now() + READY_TIMEOUT_MS
  for (let reason: unknown; ; await sleep(READY_POLL_MS)) {
    assertPossible()
    const so = await isSo().catch((error: unknown) => {
      reason = error
      return false
    })
    if (so) return
    if (Date.now() > deadline) throw new Error(`${what}: not within ${READY_TIMEOUT_MS / 1_000} s`, { cause: reason })
  }
}
