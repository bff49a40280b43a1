import { setTimeout as sleep } from 'node:timers/promises'
import { streamRereadMs } from '../domain/limits.ts'
import { getSession } from '../db/sessions.ts'
import { isEnded } from '../domain/session.ts'
import type { SessionEvent } from '../domain/events.ts'
import type { ApiDeps } from './deps.ts'
import { readLog } from './log-reader.ts'
import { patiently } from './patience.ts'

type Wakeable = Pick<ApiDeps, 'listener'>

/**
 * Something to wait on for news of a session. News that come between two waits are not missed: the next wait returns at once.
 */
const wakeUps = (deps: Wakeable, sessionId: string, signal: AbortSignal) => {
  let news = false
  let wake = (): void => {}
  const stop = deps.listener.subscribe(sessionId, () => {
    news = true
    wake()
  })
  const onAbort = (): void => wake()
  signal.addEventListener('abort', onAbort, { once: true })
  return {
    /** Resolves on news, on the signal, or after the time, whichever is first. */
    async next(timeoutMs: number): Promise<void> {
      if (!news && !signal.aborted) {
        const over = new AbortController()
        await Promise.race([
          new Promise<void>((resolve) => {
            wake = resolve
          }),
          sleep(timeoutMs, undefined, { signal: over.signal }).catch(() => {}),
        ])
        over.abort()
      }
      news = false
    },
    [Symbol.dispose]() {
      stop()
      // A signal made of others that has a listener lives as long as they do, and one of them is the process'.
      signal.removeEventListener('abort', onAbort)
    },
  }
}

/**
 * Runs `look` now and after each piece of news of the session until it gives something, or time is up, or the signal.
 * @returns what `look` gave, or null
 */
export const waitFor = async <T>(
  deps: Wakeable,
  sessionId: string,
  options: { signal: AbortSignal; timeoutMs: number },
  look: () => Promise<T | null>,
): Promise<T | null> => {
  const deadline = performance.now() + options.timeoutMs
  using news = wakeUps(deps, sessionId, options.signal)
  for (;;) {
    const found = await patiently({ signal: options.signal, timeoutMs: deadline - performance.now() }, look)
    if (found !== null) return found
    const left = deadline - performance.now()
    if (left <= 0 || options.signal.aborted) return null
    await news.next(Math.min(left, streamRereadMs))
  }
}

/**
 * The log of a session after a number, in order, without gap or repetition, in batches that are small in memory; then what is
 * appended to it. Ends when the session has ended and its log is read, or by the signal.
 */
export async function* followLog(
  deps: Pick<ApiDeps, 'listener' | 'sql'>,
  sessionId: string,
  after: number,
  signal: AbortSignal,
): AsyncGenerator<SessionEvent[]> {
  using news = wakeUps(deps, sessionId, signal)
  const forever = { signal, timeoutMs: Infinity }
  const hasEnded = (): Promise<boolean> =>
    patiently(forever, async () => {
      const session = await getSession(deps.sql, sessionId)
      return session === null || isEnded(session.status)
    })
  let cursor = after
  let ended = await hasEnded()
  while (!signal.aborted) {
    const { events: batch, more } = await patiently(forever, () => readLog(deps.sql, sessionId, cursor))
    yield batch
    cursor = batch.at(-1)?.seq ?? cursor
    if (more) continue
    // The end is known before the last read, so that nothing appended together with it is left out.
    if (ended) return
    if (batch.some((event) => event.type === 'session.ended')) ended = true
    else {
      const waitedFrom = performance.now()
      await news.next(streamRereadMs)
      if (performance.now() - waitedFrom >= streamRereadMs) ended = await hasEnded()
    }
  }
}
