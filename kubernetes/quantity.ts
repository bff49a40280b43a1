import { parseQuantity } from '../domain/quantity.ts'
import type { ContainerSpec } from './objects.ts'

/** What a container asks for, or a node has. */
export type Resources = { cpu_millicores: number; memory_bytes: number }

export const resourcesOf = (amounts: Record<string, string> | undefined): Resources => ({
  // Requests are rounded up by the scheduler; a fraction of a thousandth is noise of the floating point.
  cpu_millicores: Math.ceil(Math.round((parseQuantity(amounts?.['cpu'] ?? '0') ?? 0) * 1e6) / 1e3),
  memory_bytes: Math.ceil(parseQuantity(amounts?.['memory'] ?? '0') ?? 0),
})

const added = (a: Resources, b: Resources): Resources => ({
  cpu_millicores: a.cpu_millicores + b.cpu_millicores,
  memory_bytes: a.memory_bytes + b.memory_bytes,
})

const larger = (a: Resources, b: Resources): Resources => ({
  cpu_millicores: Math.max(a.cpu_millicores, b.cpu_millicores),
  memory_bytes: Math.max(a.memory_bytes, b.memory_bytes),
})

const nothing: Resources = { cpu_millicores: 0, memory_bytes: 0 }

type Asking = Pick<ContainerSpec, 'resources' | 'restartPolicy'>

/** A pod as far as the scheduler counts it. */
type PodRequests = {
  containers?: Asking[]
  initContainers?: Asking[]
  overhead?: Record<string, string>
}

/**
 * What the scheduler sets aside for a pod: its containers together with the sidecars that outlive their start, or the largest init container with the sidecars
 * started before it, whichever is more; and the overhead of its runtime.
 */
export const requestsOf = (spec: PodRequests | undefined): Resources => {
  const asked = ({ resources }: Asking): Resources => resourcesOf(resources?.requests)
  let sidecars = nothing
  let starting = nothing
  for (const container of spec?.initContainers ?? []) {
    if (container.restartPolicy === 'Always') sidecars = added(sidecars, asked(container))
    else starting = larger(starting, added(sidecars, asked(container)))
  }
  const running = (spec?.containers ?? []).map(asked).reduce(added, sidecars)
  return added(larger(starting, running), resourcesOf(spec?.overhead))
}

export const sumOf = (all: Resources[]): Resources => all.reduce(added, nothing)

/** Whole per cent; of nothing anything is 0. */
export const percentOf = (part: Resources, whole: Resources): { cpu: number; memory: number } => {
  const percent = (a: number, b: number): number => (b === 0 ? 0 : Math.round((a / b) * 100))
  return {
    cpu: percent(part.cpu_millicores, whole.cpu_millicores),
    memory: percent(part.memory_bytes, whole.memory_bytes),
  }
}
