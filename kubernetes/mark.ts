import type { Cluster } from './cluster.ts'
import { hasStatus } from './errors.ts'
import { podPatch, sandboxPatch } from './manifest.ts'
import type { StatePatch } from './manifest.ts'
import { ANNOTATION } from './names.ts'
import { conditionOf, pathOf } from './objects.ts'
import type { Seen } from './status.ts'

/**
 * UID of the pod that came up, of a sandbox whose marks lack it; null: they have it, or it is not known. Another pod that was made in its place is never Ready, because nobody
 * tells it what it is.
 */
export const unmarkedUid = ({ object, pod }: Seen): string | null => {
  if (object?.metadata.annotations?.[ANNOTATION.podUid] !== undefined) return null
  const isReady = conditionOf(pod?.status?.conditions, 'Ready')?.status === 'True'
  return isReady ? (pod?.metadata.uid ?? null) : null
}

/**
 * Writes the state of a sandbox on its objects: first on the `Sandbox` and its template, so that its controller agrees, then on the pod, which is what budgets and
 * autoscalers look at. What is gone needs no mark.
 */
export const markSandbox = async (cluster: Cluster, name: string, patch: StatePatch): Promise<void> => {
  const { client, settings } = cluster
  const write = async (path: string, body: object): Promise<void> => {
    try {
      await client.json({ method: 'PATCH', path, body })
    } catch (error) {
      if (!hasStatus(error, 404)) throw error
    }
  }
  if (settings.api === 'sandbox') await write(pathOf('sandboxes', settings.namespace, name), sandboxPatch(patch))
  await write(pathOf('pods', settings.namespace, name), podPatch(patch))
}
