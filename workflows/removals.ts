import { condition } from '@temporalio/workflow'
import { brief } from './steps.ts'

/** Sandboxes that are being removed behind what the workflow does. Each is removed by one activity, however often it is asked for. */
export const createRemovals = (onDone: () => void) => {
  const running = new Map<string, Promise<void>>()
  return {
    start(ids: string[]): void {
      for (const id of ids) {
        if (running.has(id)) continue
        const removal = brief
          .removeSandbox(id)
          // What could not be removed is seen again at the next look, and by the janitor.
          .catch(() => {})
          .then(() => {
            running.delete(id)
            onDone()
          })
        running.set(id, removal)
      }
    },
    count: () => running.size,
    done: () => condition(() => running.size === 0),
  }
}
