import { setTimeout as sleep } from 'node:timers/promises'

export type Limiter = {
  /** Resolves when a request may be sent; rejects with the signal's reason. */
  take(signal?: AbortSignal): Promise<void>
  /** Nobody may send for this long: the server has said so. */
  pause(ms: number): void
}

/**
 * Token bucket: `burst` at once, then `perSecond`. Waiters are served in order, because each reserves its own moment when it comes.
 * @param now milliseconds, steadily growing
 */
export const createLimiter = (
  options: { perSecond: number; burst: number },
  now: () => number = () => performance.now(),
): Limiter => {
  const everyMs = 1_000 / options.perSecond
  const creditMs = everyMs * (options.burst - 1)
  /** Moment of the next free token; in the past by at most the credit. */
  let next = now() - creditMs

  return {
    async take(signal) {
      signal?.throwIfAborted()
      const at = Math.max(next, now() - creditMs)
      next = at + everyMs
      const waitMs = at - now()
      if (waitMs > 0) await sleep(waitMs, undefined, signal === undefined ? {} : { signal })
    },
    pause(ms) {
      next = Math.max(next, now() + ms)
    },
  }
}
