import { setTimeout as sleep } from 'node:timers/promises'

/**
 * Groups what comes from a stream. The first item after a pause goes on at once, so that nobody waits for it; those that follow are
 * collected for `everyMs`, so that a fast stream costs few writes.
 * @param options.max items in one group; the stream is not read further until they are taken
 */
export async function* batches<T>(
  items: AsyncIterable<T>,
  { everyMs, max }: { everyMs: number; max: number },
): AsyncGenerator<T[]> {
  const source = items[Symbol.asyncIterator]()
  let next = source.next()
  // Whoever reads sees the failure; here it only must not count as unhandled while a group is written.
  next.catch(() => {})
  let yieldedAt = 0
  try {
    for (;;) {
      const first = await next
      if (first.done === true) return
      const group = [first.value]
      next = source.next()
      next.catch(() => {})
      const pause = sleep(Math.max(0, yieldedAt + everyMs - Date.now()), 'pause' as const)
      while (group.length < max) {
        const item = await Promise.race([next.catch(() => 'failed' as const), pause])
        // A failure is thrown by the next round, after what came before it.
        if (item === 'pause' || item === 'failed' || item.done === true) break
        group.push(item.value)
        next = source.next()
        next.catch(() => {})
      }
      yield group
      yieldedAt = Date.now()
    }
  } finally {
    // Not awaited: a generator that waits for its next item ends only after it, which may be never; whoever made it aborts it.
    source.return?.().catch(() => {})
  }
}
