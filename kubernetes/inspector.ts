import { AppError, errorText, isAppError } from '../domain/errors.ts'
import type { PlaceHealth, Problem, SandboxInspector } from '../sandbox/inspector.ts'
import type { KubeCall, KubeClient } from './client.ts'
import { getOrNull } from './cluster.ts'
import type { Access } from './cluster.ts'
import { hasStatus, isKubeError, unavailable } from './errors.ts'
import { evidenceOf } from './evidence.ts'
import { look, readPodLogs } from './look.ts'
import type { Reader } from './look.ts'
import { pathOf, resourceOf } from './objects.ts'
import type { Pod, SandboxApi } from './objects.ts'
import { inspectorRightsFor, preflight, reachProblem, unknownKind } from './preflight.ts'
import type { Preflight } from './preflight.ts'

export type KubernetesInspectorOptions = {
  /** Stays the caller's. */
  client: KubeClient
  api: SandboxApi
  namespace: string
  access: Access['by']
}

/** One read, waiting for its turn and all tries together. Two follow each other: first what there is, then what belongs to it. */
const readTimeoutMs = 6_000
/** A health check is asked by probes, which do not wait. */
const healthTimeoutMs = 2_500
/** Probes come every few seconds, from all sides; what was missing may have been put right. */
const healthyForMs = 15_000
const unhealthyForMs = 3_000

/**
 * Ends in time, whatever the API server does, and however many wait before it.
 * @param work is told by its signal when nobody waits for it any more
 * @throws AppError `unavailable`
 */
const inTime = async <T>(what: string, limitMs: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> => {
  const stop = new AbortController()
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => {
    const error = unavailable(`the Kubernetes API server did not answer ${what} within ${limitMs / 1_000} s`)
    late.reject(error)
    stop.abort(error)
  }, limitMs)
  try {
    return await Promise.race([work(stop.signal), late.promise])
  } finally {
    clearTimeout(timer)
  }
}

/** Reads that end in time, each. */
const boundedReads = (client: KubeClient, limitMs: number): Reader['client'] => {
  const bounded = <T>(call: KubeCall, read: (call: KubeCall) => Promise<T>): Promise<T> => {
    const withinMs = Math.min(limitMs, call.timeoutMs ?? limitMs)
    // The client gives up a little before, and then tells what it has met.
    return inTime(`GET ${call.path}`, withinMs, (signal) => read({ ...call, signal, timeoutMs: withinMs - 200 }))
  }
  return {
    json: <T>(call: KubeCall) => bounded(call, (limited) => client.json<T>(limited)),
    text: (call) => bounded(call, (limited) => client.text(limited)),
  }
}

/** What reading one list has met, when nothing else explains it. */
const listProblem = (error: unknown): Problem =>
  // Its definition was taken away after it had been looked for.
  hasStatus(error, 404)
    ? unknownKind
    : {
        what: 'The Kubernetes API server does not list sandboxes.',
        detail: errorText(error),
        remedy:
          'Look into the log of the API server, and of the admission webhooks and network between it and the platform.',
      }

const lookAtPlace = async (options: KubernetesInspectorOptions): Promise<PlaceHealth> => {
  const { client, api, namespace, access } = options
  const timeoutMs = healthTimeoutMs - 200
  const rights = inspectorRightsFor(api, access)
  const list = { path: pathOf(resourceOf(api), namespace), query: { limit: 1 }, timeoutMs }
  const look = (): Promise<[Preflight, Problem | null]> =>
    Promise.all([
      preflight({ client, api, namespace, access, rights, timeoutMs }),
      client.json(list).then(() => null, listProblem),
    ])
  try {
    const [{ problems, warnings }, listing] = await inTime('all that a check of it asks', healthTimeoutMs, look)
    // Whatever the check has found explains why the list fails.
    const all = problems.length === 0 && listing !== null ? [listing] : problems
    return { ok: all.length === 0, problems: all, warnings }
  } catch (error) {
    return { ok: false, problems: [reachProblem(client.server, error)], warnings: [] }
  }
}

/** Asked by many at once and looked at once; what was seen a moment ago is good enough. */
const remembered = (see: () => Promise<PlaceHealth>): (() => Promise<PlaceHealth>) => {
  let known: { health: PlaceHealth; until: number } | null = null
  let looking: Promise<PlaceHealth> | null = null
  const again = async (): Promise<PlaceHealth> => {
    try {
      const health = await see()
      known = { health, until: performance.now() + (health.ok ? healthyForMs : unhealthyForMs) }
      return health
    } finally {
      looking = null
    }
  }
  return () => {
    if (known !== null && performance.now() < known.until) return Promise.resolve(known.health)
    looking ??= again()
    return looking
  }
}

/** What the API server says of sandboxes, read when asked: no copies, no watches. Nothing is asked when it is made. */
export const createKubernetesInspector = (options: KubernetesInspectorOptions): SandboxInspector => {
  const { client, api, namespace, access } = options
  const reads = boundedReads(client, readTimeoutMs)
  const reader: Reader = {
    client: reads,
    api,
    namespace,
    hasServices: access === 'nodeport',
    mayReadNodes: true,
    believesNodes: true,
    // It keeps no copies; a log that does not come is waited for by whoever asks.
    hears: () => true,
    countsNode: true,
  }
  return {
    inspect: async (name) => evidenceOf(await look(reader, name)),
    async logs(name, wanted) {
      try {
        const pod = await getOrNull<Pod>(reads, pathOf('pods', namespace, name))
        if (pod === null) throw new AppError('not_found', `there is no pod of sandbox ${name}`)
        return await readPodLogs(reader, pod, wanted)
      } catch (error) {
        if (isAppError(error)) throw error
        const what = isKubeError(error) ? `the cluster refuses the log of ${name}` : `the log of ${name} cannot be read`
        throw new AppError('upstream', `${what}: ${errorText(error)}`, { cause: error })
      }
    },
    health: remembered(() => lookAtPlace(options)),
  }
}
