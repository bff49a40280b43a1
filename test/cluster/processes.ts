import { spawn } from 'node:child_process'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import type { Kube } from '../../tools/cluster/kube.ts'
import { CHART } from './helm.ts'

/** What of a pod a kubelet needs to start its only container. */
export type ProcessPod = {
  metadata: { name: string; namespace: string }
  spec: {
    containers: {
      name: string
      command: string[]
      env?: { name: string; value: string }[]
      envFrom: { configMapRef?: { name: string }; secretRef?: { name: string } }[]
    }[]
  }
  status?: { phase?: string }
}

type Data = { data?: Record<string, string> }

/** The environment of the pod's container, as a kubelet makes it: ConfigMap, then Secret, then the container's own. */
export const environmentOf = async (kube: Kube, pod: ProcessPod): Promise<Record<string, string>> => {
  const [container] = pod.spec.containers
  const root = `/api/v1/namespaces/${pod.metadata.namespace}`
  const all: Record<string, string> = {}
  for (const { configMapRef, secretRef } of container?.envFrom ?? []) {
    if (configMapRef !== undefined)
      Object.assign(all, (await kube.get<Data>(`${root}/configmaps/${configMapRef.name}`)).data)
    if (secretRef === undefined) continue
    const { data = {} } = await kube.get<Data>(`${root}/secrets/${secretRef.name}`)
    for (const [name, value] of Object.entries(data)) all[name] = Buffer.from(value, 'base64').toString()
  }
  for (const { name, value } of container?.env ?? []) all[name] = value
  return all
}

export type Ended = { pod: string; code: number | null; log: string }

/**
 * Plays the kubelet for pods that end, which fake nodes have none of: each that runs and carries the label is run here, the real program with exactly its environment, and its
 * end is written into its status.
 */
export const runPods = (kube: Kube, namespace: string, label: string): AsyncDisposable & { ended: Ended[] } => {
  const stopping = new AbortController()
  const ended: Ended[] = []
  const seen = new Set<string>()
  const list = `/api/v1/namespaces/${namespace}/pods?labelSelector=${encodeURIComponent(label)}`
  const run = async (pod: ProcessPod): Promise<void> => {
    const [container] = pod.spec.containers
    const [, ...args] = container?.command ?? []
    const env = { PATH: process.env['PATH'], ...(await environmentOf(kube, pod)) }
    const child = spawn(process.execPath, args, { cwd: path.join(CHART, '../..'), env, signal: stopping.signal })
    const exit = new Promise<number | null>((resolve) =>
      child.once('error', () => resolve(null)).once('close', resolve),
    )
    const [out, errors, code] = await Promise.all([text(child.stdout), text(child.stderr), exit])
    ended.push({ pod: pod.metadata.name, code, log: out + errors })
    const terminated = { exitCode: code ?? 1, reason: code === 0 ? 'Completed' : 'Error' }
    await kube.patch(`/api/v1/namespaces/${namespace}/pods/${pod.metadata.name}/status`, {
      status: {
        phase: code === 0 ? 'Succeeded' : 'Failed',
        containerStatuses: [
          { name: container?.name, image: 'lap', imageID: '', ready: false, restartCount: 0, state: { terminated } },
        ],
      },
    })
  }
  const watch = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      const { items } = await kube.get<{ items: ProcessPod[] }>(list)
      const started = items.filter((pod) => pod.status?.phase === 'Running' && !seen.has(pod.metadata.name))
      for (const pod of started) seen.add(pod.metadata.name)
      await Promise.all(started.map(run))
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
  const watched = watch()
  return {
    ended,
    [Symbol.asyncDispose]: async () => {
      stopping.abort()
      await watched
    },
  }
}
