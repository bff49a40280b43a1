export type Limiter = {
  /**
   * Resolves when a request may be sent, with the function to call when it is over; rejects with the signal's reason. Whoever gives up waiting takes nothing from
   * those behind: else a queue that is too long for its waiters would never become shorter.
   */
  enter(signal?: AbortSignal): Promise<() => void>
  /** Nobody may send for this long: the server has said so. */
  pause(ms: number): void
}

export type LimiterOptions = {
  /** Requests that may be sent without a pause; then `perSecond`. */
  burst: number
  perSecond: number
  /** Requests that may be under way. */
  atOnce: number
}

type Waiter = { go: () => void }

/** Token bucket and semaphore in one; whoever waits is served in order. */
export const createLimiter = ({ burst, perSecond, atOnce }: LimiterOptions): Limiter => {
  const waiting = new Set<Waiter>()
  let tokens = burst
  let filledAt = performance.now()
  let pausedUntil = 0
  let under = 0
  let timer: NodeJS.Timeout | null = null

  const fill = (now: number): void => {
    tokens = Math.min(burst, tokens + ((now - filledAt) * perSecond) / 1_000)
    filledAt = now
  }
  const serve = (): void => {
    if (timer !== null) clearTimeout(timer)
    timer = null
    const now = performance.now()
    fill(now)
    for (const waiter of waiting) {
      if (under >= atOnce || tokens < 1 || now < pausedUntil) break
      waiting.delete(waiter)
      tokens--
      under++
      waiter.go()
    }
    if (waiting.size === 0 || under >= atOnce) return
    const forToken = tokens < 1 ? ((1 - tokens) * 1_000) / perSecond : 0
    timer = setTimeout(serve, Math.ceil(Math.max(forToken, pausedUntil - now, 1)))
  }
  const leave = (): (() => void) => {
    let left = false
    return () => {
      if (left) return
      left = true
      under--
      serve()
    }
  }

  return {
    enter(signal) {
      if (signal?.aborted === true) return Promise.reject(signal.reason as Error)
      return new Promise((resolve, reject) => {
        const giveUp = (): void => {
          waiting.delete(waiter)
          reject(signal?.reason as Error)
        }
        const waiter = {
          go: () => {
            signal?.removeEventListener('abort', giveUp)
            resolve(leave())
          },
        }
        signal?.addEventListener('abort', giveUp, { once: true })
        waiting.add(waiter)
        serve()
      })
    },
    pause(ms) {
      pausedUntil = Math.max(pausedUntil, performance.now() + ms)
    },
  }
}
