import type { Cluster } from './cluster.ts'
import { LABEL } from './names.ts'
import type { Pod } from './objects.ts'
import { verdictOf } from './status.ts'

/** A pod of which nothing ever ran is no loss: whoever starts it hears of it. */
const hasRun = (pod: Pod | undefined): boolean =>
  pod?.status?.containerStatuses?.some(
    ({ state, lastState }) => state?.running ?? state?.terminated ?? lastState?.terminated,
  ) ?? false

export type LostOptions = {
  onLost: (name: string) => void
  /** Asks the API server: copies of two kinds may be of different age, and then look like a loss together. */
  confirm: (name: string) => Promise<boolean>
  signal: AbortSignal
}

/** Tells of each sandbox that ran and does no longer, once. What is there already when it begins is looked at, too. */
export const watchLost = (cluster: Cluster, { onLost, confirm, signal }: LostOptions): void => {
  const running = new Set<string>()
  const told = new Set<string>()

  const suspect = async (name: string): Promise<void> => {
    if (told.has(name)) return
    told.add(name)
    // Without an answer nothing is lost; the next change asks again, and so does the janitor.
    const lost = await confirm(name).catch(() => false)
    if (signal.aborted) return
    if (lost) onLost(name)
    else told.delete(name)
  }

  const lookAt = (name: string): void => {
    const seen = cluster.seen(name)
    const verdict = verdictOf(seen, { unschedulableMs: 0 })
    if (verdict.is === 'running' || hasRun(seen.pod)) running.add(name)
    // It was up once: its state says so also to a worker that did not see it.
    const state = seen.object?.metadata.labels?.[LABEL.state]
    if (state === 'ready' || state === 'claimed') running.add(name)
    if (verdict.is === 'failed' && running.has(name)) void suspect(name)
    // Names are never used again.
    if (seen.object === undefined && seen.pod === undefined) running.delete(name)
  }

  const begin = (): void => {
    if (signal.aborted) return
    signal.addEventListener('abort', cluster.onChange(lookAt), { once: true })
    for (const { metadata } of cluster.objects.all()) lookAt(metadata.name)
  }
  // Half a copy would look like a cluster full of losses.
  void cluster.synced(signal).then(begin, () => undefined)
}
