import { randomBytes } from 'node:crypto'
import { isStatus, type Kube } from '../../tools/cluster/kube.ts'

export const getOrNull = async <T>(kube: Kube, path: string): Promise<T | null> => {
  try {
    return await kube.get<T>(path)
  } catch (error) {
    if (isStatus(error, 404)) return null
    throw error
  }
}

/** Asks until it is there and so. @throws Error with what it was last */
export const eventually = async <T>(
  read: () => Promise<T | null>,
  isSo: (object: T) => boolean = () => true,
  withinMs = 20_000,
): Promise<T> => {
  for (const deadline = Date.now() + withinMs; ;) {
    const object = await read()
    if (object !== null && isSo(object)) return object
    if (Date.now() > deadline) throw new Error(`It did not become so: ${JSON.stringify(object)}`)
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
}

/** A namespace in which pods can be made. @returns its name */
export const makeNamespace = async (kube: Kube, labels: Record<string, string> = {}): Promise<string> => {
  const name = `lap-test-${randomBytes(4).toString('hex')}`
  await kube.create('/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } })
  // Without it no pod is admitted.
  await eventually(() => getOrNull(kube, `/api/v1/namespaces/${name}/serviceaccounts/default`))
  return name
}
