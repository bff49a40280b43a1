import { setTimeout as sleep } from 'node:timers/promises'
import { errorText } from '../domain/errors.ts'
import type { KubeClient } from './client.ts'
import { errorOf, hasStatus, isExpired, isKubeError } from './errors.ts'
import type { KubeObject } from './objects.ts'
import { listAll } from './pages.ts'
import { createStore } from './store.ts'
import type { Change, Store } from './store.ts'

/** A copy of one kind of objects that keeps itself current. */
export type Informer<T extends KubeObject> = {
  get(name: string): T | undefined
  all(): T[]
  /** @returns function that ends it */
  onChange(listener: (change: Change<T>) => void): () => void
  /** Resolves when the copy is complete for the first time. */
  synced(signal?: AbortSignal): Promise<void>
  /** Whether the API server does not answer for longer than a moment, or did not until `withinMs` ago. */
  wasAway(withinMs: number): boolean
}

export type InformerOptions = {
  client: KubeClient
  path: string
  labelSelector?: string
  signal: AbortSignal
  /** Told of each list or watch that failed, and why. */
  onTrouble?: (reason: string) => void
  /** Told when the API server is back after more than a moment. */
  onReturn?: () => void
}

/** The server ends each watch after about this long; spread, so that not all watches begin anew at once. */
const watchSeconds = (): number => 240 + Math.floor(Math.random() * 60)
const backoffFirstMs = 200
/** Four informers of one process that ask so often are no load, and whoever waits for a start sees soon that the server is back. */
const backoffMaxMs = 3_000
/** A watch on which nothing happens is trouble only if it also ends at once. */
const watchShortMs = 10_000
/** A break that anybody bridges. */
const absenceMinMs = 5_000

type WatchEvent<T> = {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR'
  object: T & { code?: number; message?: string }
}

/** How long to wait after the n-th quiet round in a row. */
const backoffMs = (quiet: number): number =>
  Math.min(backoffMaxMs, backoffFirstMs * 2 ** Math.min(quiet - 1, 10)) * (0.5 + Math.random() / 2)

/** The server no longer has the version from which we watch, or never had it. */
const needsList = (error: unknown): boolean => isExpired(error) || hasStatus(error, 400)

/** Keeps a store current, one list or watch at a time. */
const createReader = <T extends KubeObject>(options: InformerOptions, store: Store<T>, onHeard: () => void) => {
  const { client, path, labelSelector, signal } = options
  /** Where the next watch begins; null: with a list. */
  let version: string | null = null

  const take = ({ type, object }: WatchEvent<T>): void => {
    if (type === 'ERROR') throw errorOf(object.code ?? 500, JSON.stringify(object))
    version = object.metadata.resourceVersion ?? version
    if (type === 'DELETED') store.drop(object)
    else if (type !== 'BOOKMARK') store.set(object)
  }

  const watch = async (resourceVersion: string): Promise<boolean> => {
    let said = false
    const timeoutSeconds = watchSeconds()
    const query = { labelSelector, watch: true, allowWatchBookmarks: true, resourceVersion, timeoutSeconds }
    for await (const line of client.lines({ path, query, signal, onOpen: onHeard })) {
      take(JSON.parse(line) as WatchEvent<T>)
      said = true
    }
    return said
  }

  return {
    /** @returns whether the server said anything */
    async round(): Promise<boolean> {
      if (version !== null) return watch(version)
      const { items, metadata } = await listAll<T>(client, options)
      onHeard()
      version = metadata.resourceVersion ?? ''
      store.replace(items)
      return true
    },
    forgetVersion: (): void => void (version = null),
    isListed: (): boolean => version !== null,
  }
}

/** When the server did not answer, last. */
const createAbsence = (onReturn: () => void) => {
  let since: number | null = null
  let endedAt = Number.NEGATIVE_INFINITY
  const isLong = (): boolean => since !== null && performance.now() - since > absenceMinMs
  return {
    silent: (): void => void (since ??= performance.now()),
    heard(): void {
      const returns = isLong()
      since = null
      if (!returns) return
      endedAt = performance.now()
      onReturn()
    },
    was: (withinMs: number): boolean => isLong() || performance.now() - endedAt < withinMs,
  }
}

/**
 * Lists, then watches from where the list was, again and again until the signal. A watch that ends or breaks is taken up where it was, bookmarks included;
 * only when the server no longer has that version everything is listed anew, and the difference is told. While the server is away the copy stays as it was.
 */
export const createInformer = <T extends KubeObject>(options: InformerOptions): Informer<T> => {
  const { signal } = options
  const store = createStore<T>()
  const absence = createAbsence(options.onReturn ?? (() => undefined))
  const reader = createReader(options, store, absence.heard)
  const complete = Promise.withResolvers<void>()
  complete.promise.catch(() => undefined)

  const run = async (): Promise<void> => {
    for (let quiet = 0; !signal.aborted;) {
      let waitMs = 0
      try {
        const startedAt = performance.now()
        // A watch that ends at once without a word is trouble too, only without an error.
        quiet = (await reader.round()) || performance.now() - startedAt > watchShortMs ? 0 : quiet + 1
        if (reader.isListed()) complete.resolve()
      } catch (error) {
        if (signal.aborted) return
        quiet++
        if (!isKubeError(error) || error.status >= 500) absence.silent()
        if (reader.isListed() && needsList(error)) reader.forgetVersion()
        else options.onTrouble?.(errorText(error))
        waitMs = isKubeError(error) ? (error.retryAfterMs ?? 0) : 0
      }
      if (quiet === 0) continue
      await sleep(Math.max(waitMs, backoffMs(quiet)), undefined, { signal }).catch(() => undefined)
    }
  }
  signal.addEventListener('abort', () => complete.reject(signal.reason as Error), { once: true })
  void run()

  return {
    get: (name) => store.objects.get(name),
    all: () => [...store.objects.values()],
    onChange: (listener) => {
      store.listeners.add(listener)
      return () => store.listeners.delete(listener)
    },
    synced: (until) => (until === undefined ? complete.promise : withSignal(complete.promise, until)),
    wasAway: absence.was,
  }
}

/** The promise, or the reason of the signal if that comes first. */
const withSignal = async (promise: Promise<void>, signal: AbortSignal): Promise<void> => {
  const aborted = Promise.withResolvers<never>()
  const abort = (): void => aborted.reject(signal.reason as Error)
  if (signal.aborted) abort()
  signal.addEventListener('abort', abort, { once: true })
  try {
    await Promise.race([promise, aborted.promise])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}
