import { z } from 'zod'
import { looksLikeAddress, parseRange } from '../../domain/cidr.ts'

/** What sandboxes get from the platform itself; an agent's environment may not stand in for it. */
const RESERVED_ENV_NAMES = [
  'REPO_URL',
  'BRANCH',
  'LITELLM_API_KEY',
  'LITELLM_API_BASE',
  'LITELLM_DEFAULT_MODEL',
  'AGENT_PROMPT',
  'PORT',
  'GIT_TOKEN',
  'AGENT_REQUIREMENTS',
] as const

const namesMax = 50
const textMax = 16_384
const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/
const reserved = new Set<string>(RESERVED_ENV_NAMES)

/** Name → value. Values go in and never come out. */
export const EnvVars = z
  .record(z.string(), z.string('must be text'))
  .superRefine((vars, ctx) => {
    const names = Object.keys(vars)
    for (const name of names) {
      if (!NAME.test(name))
        ctx.addIssue({
          code: 'custom',
          path: [name],
          message: `must be a name of letters, digits and "_" that does not start with a digit (${NAME.source})`,
        })
      else if (reserved.has(name))
        ctx.addIssue({ code: 'custom', path: [name], message: 'is set by the platform; choose another name' })
      else if (vars[name]?.includes('\0'))
        ctx.addIssue({ code: 'custom', path: [name], message: 'must not contain a NUL character' })
    }
    if (names.length > namesMax) ctx.addIssue({ code: 'custom', message: `must have at most ${namesMax} names` })
    if (JSON.stringify(vars).length > textMax)
      ctx.addIssue({ code: 'custom', message: `must be at most ${textMax} characters as JSON` })
  })
  .meta({
    id: 'EnvVars',
    description: `Environment: name → value, write-only. At most ${namesMax} names, ${textMax} characters as JSON. Reserved: ${RESERVED_ENV_NAMES.join(', ')}.`,
  })

const HOST = /^(\*\.)?[A-Za-z0-9._:-]+(\/\d{1,3})?$/

const HostEntry = z
  .string()
  .min(1, 'must not be empty')
  .max(253, 'must have at most 253 characters')
  .regex(HOST, {
    error:
      'must be a host (api.example.com), a wildcard (*.example.com), an address or a range (10.0.0.0/8, 2001:db8::/32)',
    abort: true,
  })
  // What is no address would be taken for a name, and hold nothing back.
  .refine((entry) => !looksLikeAddress(entry) || parseRange(entry) !== null, {
    error: 'must be an address (192.0.2.1, 2001:db8::1) or a range (10.0.0.0/8); hosts are named without a port',
  })

export const HostList = z.array(HostEntry).max(200, 'must have at most 200 entries')

/** Name of an environment variable → hosts to which its value may go. */
export const EnvVarHosts = z.record(z.string(), HostList).meta({ id: 'EnvVarHosts' })

const covers = (rule: string, host: string): boolean => {
  const [lower, wanted] = [rule.toLowerCase(), host.toLowerCase()]
  return lower === wanted || (lower.startsWith('*.') && wanted.endsWith(lower.slice(1)))
}

/** Faults of host bindings against the names and the egress rules they refer to. */
export const hostBindingFaults = (
  hosts: Record<string, string[]>,
  names: string[],
  allowOut: string[],
): { path: string; message: string }[] =>
  Object.entries(hosts).flatMap(([name, list]) => {
    if (!names.includes(name)) return [{ path: `env_var_hosts.${name}`, message: `${name} is not in env_vars` }]
    return list
      .map((host, index) => ({ host, path: `env_var_hosts.${name}[${index}]` }))
      .filter(({ host }) => !allowOut.some((rule) => covers(rule, host)))
      .map(({ host, path }) => ({ path, message: `${host} is not covered by allow_out; add it there` }))
  })
