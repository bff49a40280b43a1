import type { SandboxRow } from '../../db/entities/sandbox.ts'
import type { Facts } from '../../domain/diagnosis.ts'
import type { Diagnosis } from '../schemas/diagnose.ts'

type Json = Record<string, unknown>

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value)
const objectAt = (source: Json | null, ...path: string[]): Json | null => {
  const found = path.reduce<unknown>((at, key) => (isObject(at) ? at[key] : undefined), source)
  return isObject(found) ? found : null
}
const textAt = (source: Json | null, key: string): string | null => {
  const value = source?.[key]
  return typeof value === 'string' ? value : null
}
const numberAt = (source: Json | null, key: string): number | null => {
  const value = source?.[key]
  return typeof value === 'number' ? value : null
}

/** Phase of a sandbox in the words of Kubernetes, for all drivers. */
const PHASES: Partial<Record<SandboxRow['state'], string>> = {
  provisioning: 'Pending',
  warm: 'Running',
  claimed: 'Running',
  ending: 'Terminating',
  failed: 'Failed',
}

export type Probe = { reachable: boolean; status?: number; state?: string; error?: string } | null

/**
 * What is known of the thing behind a sandbox: its row, the supervisor's answer, and the evidence that a driver stored. A Kubernetes
 * driver's evidence has `pod`, `sandbox_cr`, `service`, `node`, `image_cache` under `details`, and they are passed on.
 */
export const sandboxSections = (
  sandbox: SandboxRow | null,
  probe: Probe,
  now: Date,
): Pick<Diagnosis, 'pod' | 'sandbox_cr' | 'service' | 'node' | 'image_cache'> => {
  const details = objectAt(sandbox?.evidence ?? null, 'details')
  const stored = (name: string): Json & { exists: boolean } => ({ exists: false, ...objectAt(details, name) })
  const exists = sandbox !== null && !['gone', 'failed'].includes(sandbox.state)
  const phase = sandbox === null ? undefined : PHASES[sandbox.state]
  return {
    pod: {
      exists,
      ...(phase === undefined || sandbox === null
        ? {}
        : { phase, age_ms: now.getTime() - sandbox.created_at.getTime() }),
      ...(sandbox === null
        ? {}
        : { name: sandbox.name, driver: sandbox.driver, state: sandbox.state, image: sandbox.image }),
      ...(sandbox?.failure_code
        ? { failure_code: sandbox.failure_code, failure_message: sandbox.failure_message }
        : {}),
      ...(probe === null ? {} : { ready: probe.reachable }),
      ...objectAt(details, 'pod'),
      ...(sandbox?.evidence ? { evidence: sandbox.evidence } : {}),
    },
    sandbox_cr: stored('sandbox_cr'),
    service: stored('service'),
    node: stored('node'),
    image_cache: { daemonset_exists: false, ...objectAt(details, 'image_cache') },
  }
}

const waitingReasons = (pod: Json): string[] => {
  const statuses = Array.isArray(pod['container_statuses']) ? pod['container_statuses'] : []
  return statuses
    .map((one) => (isObject(one) ? textAt(one, 'waiting_reason') : null))
    .filter((reason) => reason !== null)
}

/** The sections as facts to judge. */
export const sandboxFacts = (
  sandbox: SandboxRow | null,
  sections: ReturnType<typeof sandboxSections>,
  probe: Probe,
): Pick<Facts, 'sandbox' | 'pod' | 'node' | 'service' | 'probe'> => {
  const { pod, node, service } = sections
  const allocated = objectAt(node, 'allocated_pct')
  const [cpu, memory] = [numberAt(allocated, 'cpu'), numberAt(allocated, 'memory')]
  return {
    sandbox: sandbox && {
      state: sandbox.state,
      failure_code: sandbox.failure_code,
      failure_message: sandbox.failure_message,
    },
    pod: {
      exists: pod.exists,
      phase: pod.phase ?? null,
      age_ms: pod.age_ms ?? null,
      all_ready: sandbox === null ? null : sandbox.ready_at !== null || sandbox.state !== 'provisioning',
      waiting_reasons: waitingReasons(pod),
    },
    node: {
      exists: node.exists,
      ready_status: textAt(node, 'ready_status'),
      allocated_pct: cpu === null || memory === null ? null : { cpu, memory },
    },
    service: {
      expected: sandbox?.driver === 'kubernetes' && objectAt(sandbox.evidence, 'details', 'service') !== null,
      exists: service.exists,
      node_port: numberAt(service, 'node_port'),
    },
    probe: probe && { reachable: probe.reachable, error: probe.error ?? null },
  }
}
