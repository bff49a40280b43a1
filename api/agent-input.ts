import { AppError } from '../domain/errors.ts'
import type { ErrorDetail } from '../domain/errors.ts'
import { parseQuantity, withResources } from '../domain/quantity.ts'
import type { ResourceRequirements } from '../domain/quantity.ts'
import { templateHash, templateOf } from '../sandbox/template.ts'
import type { TemplateSource } from '../sandbox/template.ts'
import type { ApiDeps } from './deps.ts'
import { MASK } from './present/agent.ts'
import type { AgentCreate, AgentPatch } from './schemas/agent.ts'
import { hostBindingFaults } from './schemas/env.ts'
import type { SessionCreate } from './schemas/session.ts'

type Deps = Pick<ApiDeps, 'config' | 'harnesses' | 'sealer'>

const reject = (details: ErrorDetail[]): void => {
  const first = details[0]
  if (first !== undefined) throw new AppError('invalid', `${first.path}: ${first.message}`, { details })
}

/** What a schema cannot know: which harnesses there are, and what the driver can clone. */
export const checkAgainstPlatform = ({ config, harnesses }: Deps, agent: AgentCreate | AgentPatch): void => {
  const known = harnesses.map((one) => one.id)
  const faults: ErrorDetail[] = []
  if (agent.harness_id !== undefined && !known.includes(agent.harness_id))
    faults.push({ path: 'harness_id', message: `must be one of: ${known.join(', ')}` })
  if (agent.repo_url?.startsWith('file:') === true && config.sandbox.driver !== 'local')
    faults.push({ path: 'repo_url', message: 'a file:// repository is only there for sandboxes of this machine' })
  reject(faults)
}

/** A first message has nobody to go to where people type. */
export const checkFirstMessage = ({ harnesses }: Deps, harnessId: string, session: SessionCreate): void => {
  if (harnesses.find(({ id }) => id === harnessId)?.supportsTui !== true) return
  const given = (['initial_prompt', 'initial_attachments'] as const).filter((field) => session[field] !== undefined)
  reject(given.map((path) => ({ path, message: `the agent's harness ${harnessId} is a terminal: open it and type` })))
}

/** @param limits those that are to hold @throws AppError `invalid` for one that would never be reached */
export const checkLimits = (
  { harnesses }: Pick<Deps, 'harnesses'>,
  harnessId: string | undefined,
  limits: { max_turns?: number | null | undefined },
): void => {
  if (limits.max_turns == null || harnesses.find(({ id }) => id === harnessId)?.supportsTui !== true) return
  const message = `the harness ${harnessId} is a terminal, which has no turns: give null, and max_cost_usd to limit it`
  reject([{ path: 'max_turns', message }])
}

/** No API server takes a container that asks for more than it may use; here it is told before any sandbox is made. */
export const checkResources = ({ config }: Deps, own: ResourceRequirements | null): void => {
  if (own === null) return
  const { requests, limits } = withResources(config.k8s.resources, own)
  const faults = (['cpu', 'memory'] as const).flatMap((kind): ErrorDetail[] => {
    const [asked, most] = [requests[kind] ?? '0', limits[kind] ?? '0']
    if ((parseQuantity(asked) ?? 0) <= (parseQuantity(most) ?? 0)) return []
    const message =
      own.requests?.[kind] === undefined
        ? `is less than the ${asked} that every sandbox asks for: give resources.requests.${kind} too`
        : `is more than the limit of ${most}: give a larger resources.limits.${kind} too`
    return [{ path: `resources.${own.requests?.[kind] === undefined ? 'limits' : 'requests'}.${kind}`, message }]
  })
  reject(faults)
}

/** The image an agent of this harness is made with from now on. */
export const imageOf = ({ config }: Deps, harnessId: string): string =>
  config.harness.images[harnessId] ?? config.harness.defaultImage

/**
 * Seals new values; the mask keeps the stored one, so that an agent that was read can be sent back.
 * @throws AppError `invalid` for a mask without anything stored behind it
 */
export const sealEnv = (
  { sealer }: Deps,
  vars: Record<string, string>,
  stored: Record<string, string> = {},
): Record<string, string> => {
  const faults: ErrorDetail[] = []
  const sealed = Object.entries(vars).map(([name, value]): [string, string] => {
    if (value !== MASK) return [name, sealer.seal(value)]
    const kept = stored[name]
    if (kept === undefined)
      faults.push({ path: `env_vars.${name}`, message: 'is the mask, and there is no stored value to keep' })
    return [name, kept ?? '']
  })
  reject(faults)
  return Object.fromEntries(sealed)
}

export const checkHostBindings = (hosts: Record<string, string[]>, names: string[], allowOut: string[]): void =>
  reject(hostBindingFaults(hosts, names, allowOut))

/** Hosts that bound credentials need stay allowed, and bindings of variables that are gone go with them. */
export const reconcileHosts = (
  hosts: Record<string, string[]>,
  names: string[],
  allowOut: string[],
): { env_var_hosts: Record<string, string[]>; allow_out: string[] } => {
  const kept = Object.fromEntries(Object.entries(hosts).filter(([name]) => names.includes(name)))
  const missing = hostBindingFaults(kept, names, allowOut).length > 0
  return {
    env_var_hosts: kept,
    allow_out: missing ? [...new Set([...allowOut, ...Object.values(kept).flat()])] : allowOut,
  }
}

export const hashOf = ({ config, sealer }: Deps, agent: TemplateSource): string =>
  templateHash(
    config.masterKey,
    templateOf(agent, {
      preinstalledRepo: config.preinstalledRepo,
      containerEnv: config.containerEnv,
      podSettings: config.podSettings,
      open: sealer.open,
    }),
  )
