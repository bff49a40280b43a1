import type { AgentRow } from '../../db/entities/agent.ts'
import type { ApiDeps } from '../deps.ts'
import type { Agent } from '../schemas/agent.ts'

/** Shown in place of every secret; sent back in a PATCH it means "keep what is stored". */
export const MASK = '••••••••'

type Harnesses = Pick<ApiDeps, 'harnesses'>

export const supportsTui = ({ harnesses }: Harnesses, harnessId: string | undefined): boolean =>
  harnesses.find(({ id }) => id === harnessId)?.supportsTui ?? false

/** An agent without a single value of its environment. */
export const presentAgent = (deps: Harnesses, row: AgentRow): Agent => ({
  id: row.id,
  name: row.name,
  model: row.model,
  prompt: row.prompt,
  tools: row.tools,
  harness_id: row.harness_id,
  harness_image: row.harness_image,
  supports_tui: supportsTui(deps, row.harness_id),
  repo_url: row.repo_url,
  branch: row.branch,
  setup_cmd: row.setup_cmd,
  pfp_url: row.pfp_url,
  mcp_servers: row.mcp_servers,
  env_vars: Object.fromEntries(Object.keys(row.env_vars).map((name) => [name, MASK])),
  env_var_hosts: row.env_var_hosts,
  attached_skill_ids: [],
  allow_out: row.allow_out,
  deny_out: row.deny_out,
  resources: row.resources,
  permissions: row.permissions,
  max_turns: row.max_turns,
  max_cost_usd: row.max_cost_usd,
  projects: row.projects,
  preload_memory_limit: row.preload_memory_limit,
  template_id: null,
  template_version: null,
  template_latest_version: null,
  template_in_sync: true,
  template_prompt: null,
  template_latest_prompt: null,
  template_hash: row.template_hash,
  last_session_at: row.last_session_at?.toISOString() ?? null,
  created_at: row.created_at.toISOString(),
  updated_at: row.updated_at.toISOString(),
})
