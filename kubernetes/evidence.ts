import { errorText } from '../domain/errors.ts'
import { evidenceLogLines } from '../domain/limits.ts'
import type { Evidence, SandboxFailure } from '../sandbox/driver.ts'
import type { Cluster } from './cluster.ts'
import { foundIn, look, readPodLogs } from './look.ts'
import type { Looked, Reader } from './look.ts'
import type { Pod } from './objects.ts'
import { sectionsOf } from './sections.ts'
import { asLoss, isHeard, verdictOf } from './status.ts'
import type { Seen, Verdict } from './status.ts'

const readerOf = ({ client, settings, services, nodes, nodesKnown }: Cluster): Reader => ({
  client,
  api: settings.api,
  namespace: settings.namespace,
  hasServices: services !== null,
  mayReadNodes: nodes !== null,
  believesNodes: nodesKnown(),
  hears: (node) => !nodesKnown() || isHeard(nodes?.get(node)),
  countsNode: false,
})

export const readLogs = (
  { client, settings }: Cluster,
  pod: Pod,
  wanted: { tailLines: number; sinceSeconds?: number },
): Promise<string[]> => readPodLogs({ client, namespace: settings.namespace }, pod, wanted)

const seenOf = (looked: Looked): Seen => ({
  api: looked.reader.api,
  object: foundIn(looked.object) ?? undefined,
  pod: foundIn(looked.pod) ?? undefined,
  node: foundIn(looked.node) ?? undefined,
  nodesKnown: looked.reader.believesNodes && looked.node !== null && 'found' in looked.node,
})

const judge = (looked: Looked): Verdict => verdictOf(seenOf(looked), { unschedulableMs: 0 })

/** Whether the sandbox is there must be known, or nothing is said of its life. */
const unknown = ({ object, pod }: Looked): { error: unknown } | null =>
  [object, pod].find((read) => 'error' in read) ?? null

export const evidenceOf = (looked: Looked): Evidence => {
  const object = foundIn(looked.object)
  const pod = foundIn(looked.pod)
  const logs = foundIn(looked.logs) ?? []
  const troubled = unknown(looked)
  const ended = pod?.status?.containerStatuses?.find(({ state }) => state?.terminated !== undefined)?.state?.terminated
  return {
    exists: (object ?? pod ?? null) !== null,
    // Unschedulable and unpullable pods are no loss: nothing of them ran.
    ...(troubled === null ? { alive: judge(looked).is !== 'failed' } : { error: errorText(troubled.error) }),
    state: pod?.status?.phase ?? (troubled !== null ? 'unknown' : object === null ? 'gone' : 'no pod'),
    ...(ended === undefined ? {} : { exitCode: ended.exitCode }),
    ...(pod?.status?.startTime === undefined ? {} : { startedAt: pod.status.startTime }),
    ...(pod?.spec?.nodeName === undefined ? {} : { node: pod.spec.nodeName }),
    ...(logs.length === 0 ? {} : { logTail: logs.slice(-evidenceLogLines) }),
    details: sectionsOf(looked, new Date()),
  }
}

/** @throws KubeError, AppError `unavailable` when it is not known whether the sandbox is there */
const lookOrThrow = async (cluster: Cluster, name: string): Promise<Looked> => {
  const looked = await look(readerOf(cluster), name)
  const troubled = unknown(looked)
  if (troubled !== null) throw troubled.error
  return looked
}

export const inspectSandbox = async (cluster: Cluster, name: string): Promise<Evidence> =>
  evidenceOf(await lookOrThrow(cluster, name))

/** Why a sandbox that was in use, or waited for it, is there no more. */
export const lossOf = async (cluster: Cluster, name: string): Promise<SandboxFailure> => {
  const looked = await lookOrThrow(cluster, name)
  const verdict = judge(looked)
  const evidence = evidenceOf(looked)
  if (verdict.is !== 'failed') return { code: 'sandbox_lost', message: 'It was lost; by now it looks well.', evidence }
  return { code: asLoss(verdict.code), message: verdict.message, evidence }
}
