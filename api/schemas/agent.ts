import { z } from 'zod'
import { QUANTITY } from '../../domain/quantity.ts'
import { Id, Limit, Offset, strict, Time } from './common.ts'
import { EnvVarHosts, EnvVars, HostList } from './env.ts'
import { MaxCostUsd, MaxTurns } from './limits.ts'
import { Permissions, PermissionsGiven } from './permission.ts'

const text = (max: number) => z.string().max(max, `must have at most ${max} characters`)
const promptMax = 200_000

/** `git@host:path` beside the URL schemes that git clones without executing anything. */
const SCP = /^git@[\w.-]+:[\w./~-]+$/
const REPO_SCHEMES = ['https:', 'ssh:', 'file:']

/** A token is given as the password, or as the user name alone; the user of SSH is no secret. */
const holdsCredential = (url: string): boolean => {
  if (!URL.canParse(url)) return false
  const { protocol, username, password } = new URL(url)
  return password !== '' || (username !== '' && protocol !== 'ssh:')
}

const RepoUrl = text(2_000)
  .refine(
    (url) => SCP.test(url) || (URL.canParse(url) && REPO_SCHEMES.includes(new URL(url).protocol)),
    'must be a git URL: https://…, ssh://…, or git@host:path',
  )
  .refine(
    (url) => !holdsCredential(url),
    'must not hold a user name or password: everyone who reads the agent would see it',
  )

/** A git ref cannot start with "-", so nothing can be taken for an option. */
const Branch = text(255).regex(/^[^\s~^:?*[\\-][^\s~^:?*[\\]*$/, 'must be the name of a branch')

const Project = strict({
  id: text(255),
  name: text(255),
  description: text(10_000).default(''),
  repo_url: RepoUrl.optional(),
  branch: Branch.default('main'),
  setup_cmd: text(10_000).optional(),
}).meta({ id: 'Project' })

const PreloadLimit = z.int('must be a whole number').min(0, 'must be 0..50').max(50, 'must be 0..50')
const Model = text(255).min(1, 'must name a model of the gateway')

const Quantity = text(32).regex(QUANTITY, 'must be a Kubernetes quantity, for instance 500m, 2 or 512Mi')
const Amounts = strict({ cpu: Quantity.optional(), memory: Quantity.optional() })
const Resources = strict({ requests: Amounts.optional(), limits: Amounts.optional() }).meta({
  id: 'Resources',
  description:
    'CPU and memory of each of its sandboxes on Kubernetes, for instance {"limits":{"memory":"8Gi"}}. What is left out is as the settings say.',
})

const shared = {
  name: text(255).nullable().optional(),
  prompt: text(promptMax).nullable().optional(),
  tools: z.array(z.unknown()).max(200).optional(),
  harness_id: z.string().min(1).optional(),
  repo_url: RepoUrl.nullable().optional(),
  branch: Branch.optional(),
  setup_cmd: text(10_000).nullable().optional().describe('Shell command run in the clone before the harness starts.'),
  pfp_url: text(2_000).nullable().optional(),
  mcp_servers: z
    .array(text(255))
    .max(100)
    .optional()
    .describe('MCP servers of the gateway by id, name or alias; sessions opened from now on have their tools.'),
  allow_out: HostList.optional(),
  deny_out: HostList.optional(),
  resources: Resources.nullable().optional(),
  permissions: PermissionsGiven.optional(),
  max_turns: MaxTurns.optional(),
  max_cost_usd: MaxCostUsd.optional(),
  projects: z.array(Project).max(50).optional(),
  preload_memory_limit: PreloadLimit.optional(),
  env_vars: EnvVars.optional(),
  env_var_hosts: EnvVarHosts.optional(),
}

export const AgentCreate = strict({ model: Model, ...shared }).meta({ id: 'AgentCreate' })
export type AgentCreate = z.output<typeof AgentCreate>

export const AgentPatch = strict({
  model: Model.optional(),
  ...shared,
  harness_image: text(500).min(1, 'must name an image').optional(),
}).meta({
  id: 'AgentPatch',
  description: 'What is left out stays. `env_vars` replaces the whole map; the mask as a value keeps the stored one.',
})
/** What was sent; JSON has no `undefined`, so a field is there with a value or not at all. */
export type AgentPatch = {
  [K in keyof z.output<typeof AgentPatch>]?: Exclude<z.output<typeof AgentPatch>[K], undefined>
}

export const AgentListQuery = z.object({
  limit: Limit,
  offset: Offset,
  sort: z
    .enum(['created_at', 'name', 'harness_id', 'sessions'], 'must be created_at, name, harness_id or sessions')
    .default('created_at'),
  order: z.enum(['asc', 'desc'], 'must be asc or desc').default('desc'),
  search: text(255).optional().describe('Part of a name, an id or a harness.'),
})

const fields = {
  id: Id,
  name: z.string().nullable(),
  model: z.string(),
  prompt: z.string().nullable(),
  tools: z.array(z.unknown()),
  harness_id: z.string(),
  harness_image: z.string().describe('As it was when the agent was created.'),
  supports_tui: z.boolean(),
  repo_url: z.string().nullable(),
  branch: z.string(),
  setup_cmd: z.string().nullable(),
  pfp_url: z.string().nullable(),
  mcp_servers: z.array(z.string()),
  env_vars: z.record(z.string(), z.string()).describe('Names; every value is shown as a mask.'),
  env_var_hosts: EnvVarHosts,
  attached_skill_ids: z.array(z.string()),
  allow_out: z.array(z.string()),
  deny_out: z.array(z.string()),
  resources: Resources.nullable(),
  permissions: Permissions,
  max_turns: z.int().nullable().describe('Of its sessions that say nothing else.'),
  max_cost_usd: z.number().nullable().describe('Of its sessions that say nothing else.'),
  projects: z.array(z.unknown()),
  preload_memory_limit: z.int(),
  template_id: z.string().nullable(),
  template_version: z.int().nullable(),
  template_latest_version: z.int().nullable(),
  template_in_sync: z.boolean(),
  template_prompt: z.string().nullable(),
  template_latest_prompt: z.string().nullable(),
  template_hash: z.string().describe('Agents with the same one can serve each other from the warm pool.'),
  last_session_at: Time.nullable(),
  created_at: Time,
  updated_at: Time,
}

export const Agent = z.object(fields).meta({ id: 'Agent' })
export type Agent = z.output<typeof Agent>

export const AgentList = z
  .object({
    data: z.array(z.object({ ...fields, session_count: z.int(), has_active_session: z.boolean() })),
    total: z.int(),
    limit: z.int(),
    offset: z.int(),
  })
  .meta({ id: 'AgentList' })
