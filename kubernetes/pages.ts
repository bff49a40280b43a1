import type { KubeClient } from './client.ts'
import type { KubeList, KubeObject } from './objects.ts'

const pageSize = 500
const listTimeoutMs = 30_000

/** All objects at a path, read in pages; their version is that of the first one, as the server keeps it for all of them. */
export const listAll = async <T extends KubeObject>(
  client: KubeClient,
  what: { path: string; labelSelector?: string | undefined; signal?: AbortSignal },
): Promise<KubeList<T>> => {
  const { path, labelSelector, signal } = what
  const items: T[] = []
  let next: string | undefined
  for (;;) {
    const query = { labelSelector, limit: pageSize, continue: next }
    const call = { path, query, timeoutMs: listTimeoutMs, ...(signal === undefined ? {} : { signal }) }
    const page: KubeList<T> = await client.json<KubeList<T>>(call)
    items.push(...page.items)
    next = page.metadata.continue === '' ? undefined : page.metadata.continue
    if (next === undefined) return { metadata: page.metadata, items }
  }
}
