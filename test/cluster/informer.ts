import { setTimeout as sleep } from 'node:timers/promises'
import { isStatus, type Kube } from '../../tools/cluster/kube.ts'

type Object_ = { metadata: { namespace: string; name: string; uid: string; resourceVersion: string } }

/** What is in the cluster under one path, kept up to date by one watch. */
export type Informer<T> = {
  get(key: string): T | undefined
  /** Resolves after the first list. */
  synced: Promise<void>
}

export type InformerOptions<T> = { kube: Kube; path: string; onChange: (object: T) => void; signal: AbortSignal }

const RETRY_MS = 500
/** The server ends each watch after this long. One that has gone silent, as it may around the start of an API server, is then opened anew. */
const WATCH_S = 45

const keyOf = ({ metadata }: Object_): string => `${metadata.namespace}/${metadata.name}`

/** Lists, watches from there, goes on from the last version when the watch ends, and lists anew when that version is too old (410). */
export const createInformer = <T extends Object_>({
  kube,
  path,
  onChange,
  signal,
}: InformerOptions<T>): Informer<T> => {
  const objects = new Map<string, T>()
  let version: string | null = null
  let isSynced: () => void = () => {}
  const synced = new Promise<void>((resolve) => (isSynced = resolve))

  const list = async (): Promise<void> => {
    const { items, metadata } = await kube.get<{ items: T[]; metadata: { resourceVersion: string } }>(path)
    const before = new Map(objects)
    objects.clear()
    for (const object of items) objects.set(keyOf(object), object)
    for (const [key, object] of before) if (!objects.has(key)) onChange(object)
    for (const object of items) onChange(object)
    version = metadata.resourceVersion
    isSynced()
  }

  const follow = async (from: string): Promise<void> => {
    const query = `watch=true&allowWatchBookmarks=true&timeoutSeconds=${WATCH_S}&resourceVersion=${from}`
    for await (const { type, object } of kube.watch<T>(`${path}?${query}`, signal)) {
      // An error in the stream is a Status: mostly 410, and in any case the way on is to list.
      if (type === 'ERROR') {
        version = null
        return
      }
      version = object.metadata.resourceVersion
      if (type === 'BOOKMARK') continue
      if (type === 'DELETED') objects.delete(keyOf(object))
      else objects.set(keyOf(object), object)
      onChange(object)
    }
  }

  const run = async (): Promise<void> => {
    while (!signal.aborted) {
      try {
        if (version === null) await list()
        if (version !== null) await follow(version)
      } catch (error) {
        if (isStatus(error, 410)) version = null
        else if (!signal.aborted) await sleep(RETRY_MS, undefined, { signal }).catch(() => {})
      }
    }
  }
  void run()
  return { get: (key) => objects.get(key), synced }
}
