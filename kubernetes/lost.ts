import { setTimeout as sleep } from 'node:timers/promises'
import type { Cluster } from './cluster.ts'
import type { Pod } from './objects.ts'
import { verdictOf, wasUp } from './status.ts'
import type { Verdict } from './status.ts'

/** A pod of which nothing ever ran is no loss: whoever starts it hears of it. */
const hasRun = (pod: Pod | undefined): boolean =>
  pod?.status?.containerStatuses?.some(
    ({ state, lastState }) => state?.running ?? state?.terminated ?? lastState?.terminated,
  ) ?? false

/** Pause before the API server is asked again about a sandbox that goes on looking lost. */
const confirmAgainMs = 1_000

export type LostOptions = {
  onLost: (name: string) => void
  /** Whether it is, says the API server. */
  confirm: (name: string) => Promise<boolean>
  signal: AbortSignal
}

/** Tells of each sandbox that ran and does no longer, once. What is there already when it begins is looked at, too. */
export const watchLost = (cluster: Cluster, { onLost, confirm, signal }: LostOptions): void => {
  const running = new Set<string>()
  const told = new Set<string>()

  const verdict = (name: string): Verdict => verdictOf(cluster.seen(name), { unschedulableMs: 0 })

  const suspect = async (name: string): Promise<void> => {
    if (told.has(name)) return
    told.add(name)
    while (verdict(name).is === 'failed') {
      // Without an answer nothing is lost yet.
      const lost = await confirm(name).catch(() => false)
      if (signal.aborted) return
      if (lost) return onLost(name)
      await sleep(confirmAgainMs, undefined, { signal }).catch(() => undefined)
    }
    told.delete(name)
  }

  const lookAt = (name: string): void => {
    const { object, pod } = cluster.seen(name)
    const { is } = verdict(name)
    if (is === 'running' || hasRun(pod)) running.add(name)
    // It was up once: its state says so also to a worker that did not see it.
    if (object !== undefined && wasUp(object)) running.add(name)
    if (is === 'failed' && running.has(name)) void suspect(name)
    // Names are never used again.
    if (object !== undefined || pod !== undefined) return
    running.delete(name)
    told.delete(name)
  }

  const begin = (): void => {
    if (signal.aborted) return
    signal.addEventListener('abort', cluster.onChange(lookAt), { once: true })
    for (const { metadata } of cluster.objects.all()) lookAt(metadata.name)
  }
  // Half a copy would look like a cluster full of losses.
  void cluster.synced(signal).then(begin, () => undefined)
}
