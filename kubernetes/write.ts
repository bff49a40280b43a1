import { SandboxFailedError } from '../sandbox/driver.ts'
import type { KubeCall, KubeClient } from './client.ts'
import type { Cluster } from './cluster.ts'
import { hasStatus, isKubeError, refusalOf, unavailable } from './errors.ts'
import { LABEL, MANAGED_BY } from './names.ts'
import type { KubeObject } from './objects.ts'

const readyzMs = 2_000

/** Whether an object belongs to this installation. Names alone prove nothing. */
export const isOurs = (object: KubeObject, instance: string): boolean =>
  object.metadata.labels?.[LABEL.managedBy] === MANAGED_BY && object.metadata.labels[LABEL.instance] === instance

/** What the API server refuses for good is a failure with a code; anything else is worth another try. */
export const rejected = (error: unknown, what: string): unknown => {
  if (!isKubeError(error)) return error
  const code = refusalOf(error.status, error.message)
  const missing = error.status === 404
  if (code === null && !missing) return error
  const message = missing
    ? `${what}: the cluster does not know this kind, or the namespace is missing: ${error.message}`
    : `${what}: ${error.message}`
  const evidence = { exists: false, error: error.message, details: { status: error.status, reason: error.reason } }
  return new SandboxFailedError({ code: code ?? 'setup_failed', message, evidence })
}

const lacksRight = (error: unknown): boolean =>
  isKubeError(error) && error.status === 403 && /cannot \w+ resource/.test(error.message)

/** An API server that has just started refuses everybody everything until it has read its roles, this question, too: 403 is no answer to it. */
export const isReady = (client: Pick<KubeClient, 'text'>): Promise<boolean> =>
  client.text({ path: '/readyz', timeoutMs: readyzMs }).then(
    () => true,
    // Something in front of the API server keeps the question from it.
    (error: unknown) => hasStatus(error, 404),
  )

/** Sends what changes something, or has to be believed when it is refused. */
export const write = async <T>(cluster: Cluster, call: KubeCall): Promise<T> => {
  const send = (): Promise<T> => cluster.client.json<T>(call)
  try {
    return await send()
  } catch (error) {
    if (!lacksRight(error)) throw error
    if (!(await isReady(cluster.client))) throw unavailable('the Kubernetes API server is starting', error)
    // It may have become so only now.
    return send()
  }
}
