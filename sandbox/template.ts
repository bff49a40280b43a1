import { createHmac } from 'node:crypto'
import type { ResourceRequirements } from '../domain/quantity.ts'

/** What a sandbox is made from. Two agents with equal templates can serve each other's sessions. */
export type Template = {
  harness_id: string
  image: string
  repo_url: string
  branch: string
  setup_cmd: string | null
  /** `CONTAINER_ENV_*` and, over it, the agent's own `env_vars`. */
  env: Record<string, string>
  allow_out: string[]
  deny_out: string[]
  /** Absent where the agent has none of its own, so that its hash is what it was before there were any. */
  resources?: ResourceRequirements
  /** What the installation says of all its pods; absent where there are none. */
  pod?: object
}

/** The part of an agent that goes into its template; the agent's row fits. */
export type TemplateSource = {
  harness_id: string
  harness_image: string
  repo_url: string | null
  branch: string
  setup_cmd: string | null
  /** Name → sealed value. */
  env_vars: Record<string, string>
  allow_out: string[]
  deny_out: string[]
  resources: ResourceRequirements | null
}

/** What the settings add. */
export type TemplateContext = {
  preinstalledRepo: string
  containerEnv: Record<string, string>
  /** null: the driver makes no pods. */
  podSettings: object | null
  open: (sealed: string) => string
}

export const templateOf = (agent: TemplateSource, context: TemplateContext): Template => ({
  harness_id: agent.harness_id,
  image: agent.harness_image,
  repo_url: agent.repo_url ?? context.preinstalledRepo,
  branch: agent.branch,
  setup_cmd: agent.setup_cmd,
  env: {
    ...context.containerEnv,
    ...Object.fromEntries(Object.entries(agent.env_vars).map(([name, sealed]) => [name, context.open(sealed)])),
  },
  allow_out: agent.allow_out,
  deny_out: agent.deny_out,
  ...(agent.resources === null ? {} : { resources: agent.resources }),
  ...(context.podSettings === null ? {} : { pod: context.podSettings }),
})

const canonical = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(canonical)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(
    Object.entries(value)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, item]) => [key, canonical(item)]),
  )
}

/**
 * Name of a template: 32 hex characters. Keyed, because the template holds values of the environment and its hash is stored and shown:
 * without the key nobody can try values against it.
 */
export const templateHash = (masterKey: string, template: Template): string => {
  const sets = { ...template, allow_out: template.allow_out.toSorted(), deny_out: template.deny_out.toSorted() }
  const key = createHmac('sha256', masterKey).update('lap template hash v1').digest()
  return createHmac('sha256', key)
    .update(JSON.stringify(canonical(sets)))
    .digest('hex')
    .slice(0, 32)
}
