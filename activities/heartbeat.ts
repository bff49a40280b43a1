import { Context } from '@temporalio/activity'

/** Runs while the server is told that this activity lives, which is also how it hears that it is not wanted any more. */
export const withHeartbeat = async <T>(everyMs: number, work: () => Promise<T>): Promise<T> => {
  const context = Context.current()
  const timer = setInterval(() => context.heartbeat(), everyMs)
  try {
    return await work()
  } catch (error) {
    // What was thrown because of the abort is not the reason; the cancellation is.
    if (context.cancellationSignal.aborted) await context.cancelled
    throw error
  } finally {
    clearInterval(timer)
  }
}
