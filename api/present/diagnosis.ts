import type { SandboxRow } from '../../db/entities/sandbox.ts'
import type { Facts } from '../../domain/diagnosis.ts'
import type { Evidence } from '../../sandbox/driver.ts'
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

/** Phase of a sandbox in the words of Kubernetes, for all drivers. */
const PHASES: Partial<Record<SandboxRow['state'], string>> = {
  provisioning: 'Pending',
  warm: 'Running',
  claimed: 'Running',
  ending: 'Terminating',
  failed: 'Failed',
}

export type Probe = { reachable: boolean; status?: number; state?: string; error?: string } | null

type Sections = Pick<Diagnosis, 'pod' | 'sandbox_cr' | 'service' | 'node' | 'image_cache' | 'events'>

export type SandboxView = Pick<Diagnosis, 'source' | 'seen_at'> & {
  sections: Sections
  /** The sections as they were seen, to be judged: of what is gone they say that it was there. */
  seen: Sections
  /** The place says that it does not run, and its row says that it does. */
  vanished: boolean
}

/** What is known of it without asking anybody: its row. */
const rowFacts = (sandbox: SandboxRow | null): Json =>
  sandbox === null
    ? {}
    : {
        name: sandbox.name,
        driver: sandbox.driver,
        state: sandbox.state,
        image: sandbox.image,
        ...(sandbox.failure_code
          ? { failure_code: sandbox.failure_code, failure_message: sandbox.failure_message }
          : {}),
        ...(sandbox.evidence ? { evidence: sandbox.evidence } : {}),
      }

/** Evidence of the Kubernetes driver has the sections under `details`, in the shapes of the wire. */
const sectionsOf = (details: Json | null, pod: Sections['pod']): Sections => {
  const section = (name: string): Json & { exists: boolean } => ({ exists: false, ...objectAt(details, name) })
  const events = details?.['events']
  const eventsError = textAt(details, 'events_error')
  return {
    pod: { ...pod, ...objectAt(details, 'pod') },
    sandbox_cr: section('sandbox_cr'),
    service: section('service'),
    node: section('node'),
    image_cache: { daemonset_exists: false, ...objectAt(details, 'image_cache') },
    events: {
      items: Array.isArray(events) ? (events as Sections['events']['items']) : [],
      ...(eventsError === null ? {} : { error: eventsError }),
    },
  }
}

const isEnded = (sandbox: SandboxRow | null): boolean => sandbox === null || ['gone', 'failed'].includes(sandbox.state)

/** From the row, the supervisor's answer, and the evidence that was kept. */
const storedView = (sandbox: SandboxRow | null, { probe, live, now }: Looked): SandboxView => {
  const details = objectAt(sandbox?.evidence ?? null, 'details')
  // Where there is a place to ask, its word counts: nothing is there.
  const exists = !isEnded(sandbox) && live === null
  const phase = sandbox === null || (live !== null && !isEnded(sandbox)) ? undefined : PHASES[sandbox.state]
  const pod = {
    exists,
    ...(phase === undefined || sandbox === null ? {} : { phase, age_ms: now.getTime() - sandbox.created_at.getTime() }),
    ...rowFacts(sandbox),
    ...(probe === null ? {} : { ready: probe.reachable }),
  }
  const seen = sectionsOf(details, pod)
  return {
    source: 'stored',
    seen_at: textAt(details, 'seen_at'),
    seen,
    sections: {
      ...seen,
      pod: { ...seen.pod, exists },
      sandbox_cr: { ...seen.sandbox_cr, exists: false },
      service: { ...seen.service, exists: false },
    },
    vanished: live !== null && live.error === undefined && isInUse(sandbox),
  }
}

/** It ran: what is not there yet is not missed. */
const isInUse = (sandbox: SandboxRow | null): boolean => sandbox?.state === 'warm' || sandbox?.state === 'claimed'

/** `live`: what the place of the sandboxes says; null: there is nothing to ask. */
export type Looked = { probe: Probe; live: Evidence | null; now: Date }

/** What is known of the thing behind a sandbox. */
export const viewOf = (sandbox: SandboxRow | null, looked: Looked): SandboxView => {
  const { live, probe } = looked
  const unknown = live?.error !== undefined
  if (live === null || (!live.exists && (!unknown || isEnded(sandbox)))) return storedView(sandbox, looked)
  const details = live.details ?? null
  const pod = { exists: false, ...rowFacts(sandbox), ...(probe === null ? {} : { ready: probe.reachable }) }
  const sections = sectionsOf(details, pod)
  return {
    source: 'live',
    seen_at: textAt(details, 'seen_at'),
    sections,
    seen: sections,
    vanished: live.alive === false && isInUse(sandbox),
  }
}

type Container = { ready?: unknown; init?: unknown; waiting_reason?: string | undefined }

/** null: it does not say. */
const allReady = (containers: Container[] | undefined): boolean | null => {
  if (containers === undefined) return null
  const own = containers.filter(({ init }) => init !== true)
  return own.length > 0 && own.every(({ ready }) => ready === true)
}

/** The sections as facts to judge. */
export const sandboxFacts = (
  sandbox: SandboxRow | null,
  { source, seen, vanished }: SandboxView,
  probe: Probe,
): Pick<Facts, 'seen' | 'sandbox' | 'pod' | 'node' | 'service' | 'probe'> => {
  const { pod, node, service } = seen
  const containers = pod.container_statuses
  const byRow = sandbox === null ? null : sandbox.ready_at !== null || sandbox.state !== 'provisioning'
  return {
    seen: source === 'stored' && isEnded(sandbox) ? 'before' : 'now',
    sandbox: sandbox && {
      state: sandbox.state,
      failure_code: sandbox.failure_code,
      failure_message: sandbox.failure_message,
      vanished,
    },
    pod: {
      exists: pod.exists,
      phase: pod.phase ?? null,
      age_ms: pod.age_ms ?? null,
      all_ready: sandbox?.driver === 'kubernetes' ? allReady(containers) : byRow,
      waiting_reasons: (containers ?? [])
        .map(({ waiting_reason }) => waiting_reason)
        .filter((one) => one !== undefined),
    },
    node: {
      exists: node.exists,
      gone: node.name !== undefined && !node.exists && node.error === undefined,
      ready_status: node.ready_status ?? null,
      allocated_pct: node.allocated_pct ?? null,
    },
    service: {
      expected: service.expected === true,
      exists: service.error === undefined ? service.exists : null,
      node_port: service.node_port ?? null,
    },
    probe: probe && { reachable: probe.reachable, error: probe.error ?? null },
  }
}
