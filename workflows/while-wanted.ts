import { CancellationScope, condition, isCancellation } from '@temporalio/workflow'

/**
 * Does something that takes long, looks now and then whether it is still wanted, and stops it as soon as it is not.
 * @param watch.woken whether there is a reason to look now
 * @param watch.lookAgainMs the latest moment of the next look, from now
 * @param watch.look whether it is wanted
 * @returns its result, or `stopped`, once it has really stopped
 */
export const whileWanted = async <T>(
  work: () => Promise<T>,
  watch: { woken: () => boolean; lookAgainMs: () => number; look: () => Promise<boolean> },
): Promise<T | 'stopped'> => {
  const state = { over: false }
  const scope = new CancellationScope()
  const running = (async (): Promise<T | 'stopped'> => {
    try {
      return await scope.run(work)
    } catch (error) {
      if (isCancellation(error) && scope.consideredCancelled) return 'stopped'
      throw error
    } finally {
      state.over = true
    }
  })()
  // Awaited below; until then a failure must not count as unhandled.
  running.catch(() => {})
  while (!state.over) {
    await condition(() => state.over || watch.woken(), watch.lookAgainMs())
    if (state.over) break
    if (await watch.look()) continue
    scope.cancel()
    await condition(() => state.over)
  }
  return running
}
