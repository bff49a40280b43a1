import { Agent } from 'undici'
import { AppError, errorText } from '../domain/errors.ts'
import { connectTimeoutMs } from '../domain/limits.ts'
import type { ListedSandbox, SandboxDriver, SandboxSpec } from '../sandbox/driver.ts'
import { createCluster, getOrNull } from './cluster.ts'
import type { Access, Cluster } from './cluster.ts'
import type { KubeClient } from './client.ts'
import { bootSilenceMs } from './configure.ts'
import { createConfirm } from './confirm.ts'
import { createSandbox } from './create.ts'
import { inspectSandbox, lossOf, readLogs } from './evidence.ts'
import { listSandboxes } from './list.ts'
import { watchLost } from './lost.ts'
import { markSandbox, unmarkedUid } from './mark.ts'
import { claimedPatch, readyPatch } from './manifest.ts'
import type { PodSettings } from './manifest.ts'
import { pathOf } from './objects.ts'
import type { Pod } from './objects.ts'
import { keepPolicy } from './policy.ts'
import { awaitReady } from './ready.ts'
import { removeSandbox } from './remove.ts'

export type KubernetesDriverOptions = {
  client: KubeClient
  settings: PodSettings
  access: Access
  /** Whether the rights reach to nodes, which belong to no namespace. */
  mayReadNodes: boolean
  /** How long a sandbox may wait for a node. */
  unschedulableMs: number
  /** Something that repairs itself, such as a watch that broke. */
  onTrouble?: (reason: string) => void
}

/** More starts than one process ever has under way. */
const specsMax = 2_000

export type KubernetesDriver = SandboxDriver &
  AsyncDisposable & { readonly cluster: Cluster } & {
    readonly [mark in 'markReady' | 'markClaimed']: NonNullable<SandboxDriver[mark]>
  }

/** Sandboxes as pods of a cluster: see docs/kubernetes-driver.md. */
export const createKubernetesDriver = (options: KubernetesDriverOptions): KubernetesDriver => {
  const { client, settings, access, mayReadNodes, unschedulableMs } = options
  const ending = new AbortController()
  const onTrouble = options.onTrouble ?? (() => undefined)
  const cluster = createCluster({ client, settings, access, mayReadNodes, signal: ending.signal, onTrouble })
  const agent = new Agent({
    connect: { timeout: connectTimeoutMs },
    headersTimeout: bootSilenceMs,
    bodyTimeout: bootSilenceMs,
  })
  /** What `ready` has to tell the supervisor, from `create` to its end: whoever waits, and waits again, asks for the sandbox before. */
  const specs = new Map<string, SandboxSpec>()
  const inspect = (name: string) => inspectSandbox(cluster, name)

  const start = async (spec: SandboxSpec, wait: Parameters<SandboxDriver['ready']>[1]) => {
    const deadline = AbortSignal.timeout(Math.max(1, Math.ceil(wait.deadlineMs)))
    await cluster.synced(AbortSignal.any([wait.signal, deadline]))
    return awaitReady({ cluster, agent, unschedulableMs, inspect }, spec, settings.supervisorPort, wait)
  }

  return {
    kind: 'kubernetes',
    cluster,
    async create(spec) {
      await createSandbox(cluster, spec)
      // Who is cancelled between `create` and `ready` leaves one here: the oldest goes.
      const [oldest] = specs.keys()
      if (specs.size >= specsMax && oldest !== undefined) specs.delete(oldest)
      specs.set(spec.name, spec)
    },
    async ready(name, wait) {
      const spec = specs.get(name)
      if (spec === undefined) throw new AppError('invalid', `sandbox ${name} was not created by this process`)
      const { endpoint, podUid } = await start(spec, wait).finally(() => {
        // An attempt of the same start may have begun after this one was given up.
        if (specs.get(name) === spec) specs.delete(name)
      })
      const troubled = (error: unknown): void => onTrouble(`sandbox ${name} could not be marked: ${errorText(error)}`)
      // It can be used without; the mark says which pod it was, and that it came so far. Who claims it, and the janitor, make up for it.
      await Promise.all([
        markSandbox(cluster, name, readyPatch(podUid)).catch(troubled),
        keepPolicy(cluster, name, podUid).catch(troubled),
      ])
      return { endpoint }
    },
    markReady: (name) => markSandbox(cluster, name, readyPatch(unmarkedUid(cluster.seen(name)))),
    markClaimed: (name, sessionId) =>
      markSandbox(cluster, name, claimedPatch(sessionId, unmarkedUid(cluster.seen(name)))),
    async remove(name) {
      specs.delete(name)
      await removeSandbox(cluster, name)
    },
    list: (): Promise<ListedSandbox[]> => listSandboxes(cluster),
    inspect,
    lossOf: (name) => lossOf(cluster, name),
    async logs(name, wanted) {
      const pod = await getOrNull<Pod>(client, pathOf('pods', settings.namespace, name))
      if (pod === null) throw new AppError('not_found', `there is no pod of sandbox ${name}`)
      return readLogs(cluster, pod, wanted)
    },
    watchLost: (onLost, signal) => watchLost(cluster, { onLost, confirm: createConfirm(cluster), signal }),
    async [Symbol.asyncDispose]() {
      ending.abort(new AppError('unavailable', 'the driver was closed'))
      await Promise.all([agent.destroy(), client[Symbol.asyncDispose]()])
    },
  }
}
