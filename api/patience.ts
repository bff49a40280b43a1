import { setTimeout as sleep } from 'node:timers/promises'
import { isAppError } from '../domain/errors.ts'
import { databaseRetryMs } from '../domain/limits.ts'

/** Does something again while the database is away: it restarts, and what was read before is still true after. */
export const patiently = async <T>(
  options: { signal: AbortSignal; timeoutMs: number },
  act: () => Promise<T>,
): Promise<T> => {
  const deadline = performance.now() + options.timeoutMs
  for (;;) {
    try {
      return await act()
    } catch (error) {
      const away = isAppError(error) && error.code === 'unavailable'
      if (!away || options.signal.aborted || performance.now() > deadline) throw error
      await sleep(databaseRetryMs, undefined, { signal: options.signal }).catch(() => {})
    }
  }
}
