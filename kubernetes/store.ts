import type { KubeObject } from './objects.ts'

export type Change<T> = { type: 'set' | 'deleted'; object: T; before: T | undefined }

/** The objects, and who wants to know of their changes. */
export const createStore = <T extends KubeObject>() => {
  const objects = new Map<string, T>()
  const listeners = new Set<(change: Change<T>) => void>()
  const tell = (change: Change<T>): void => {
    for (const listener of listeners) listener(change)
  }
  const set = (object: T): void => {
    const before = objects.get(object.metadata.name)
    if (before !== undefined && before.metadata.resourceVersion === object.metadata.resourceVersion) return
    objects.set(object.metadata.name, object)
    // The name has passed to another object, and nobody saw the end of the first.
    if (before !== undefined && before.metadata.uid !== object.metadata.uid)
      tell({ type: 'deleted', object: before, before })
    tell({ type: 'set', object, before: before?.metadata.uid === object.metadata.uid ? before : undefined })
  }
  const drop = (object: T): void => {
    const before = objects.get(object.metadata.name)
    if (before === undefined || before.metadata.uid !== object.metadata.uid) return
    objects.delete(object.metadata.name)
    tell({ type: 'deleted', object, before })
  }
  /** What is not in a new list was deleted while nobody watched. */
  const replace = (items: T[]): void => {
    const names = new Set(items.map(({ metadata }) => metadata.name))
    for (const [name, object] of objects) if (!names.has(name)) drop(object)
    for (const item of items) set(item)
  }
  return { objects, listeners, set, drop, replace }
}

export type Store<T extends KubeObject> = ReturnType<typeof createStore<T>>
