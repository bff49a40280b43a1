import { defineEntity, p } from '@mikro-orm/core'
import type { PermissionPolicy } from '../../domain/permission.ts'
import type { ResourceRequirements } from '../../domain/quantity.ts'

/** A harness, a model, a prompt, a repository and an environment, under a name. */
export type AgentRow = {
  id: string
  name: string | null
  model: string
  prompt: string | null
  tools: unknown[]
  harness_id: string
  /** Snapshot taken at creation: later changes of the settings do not touch existing agents. */
  harness_image: string
  repo_url: string | null
  branch: string
  setup_cmd: string | null
  pfp_url: string | null
  mcp_servers: string[]
  /** Name → sealed value. */
  env_vars: Record<string, string>
  env_var_hosts: Record<string, string[]>
  allow_out: string[]
  deny_out: string[]
  resources: ResourceRequirements | null
  permissions: PermissionPolicy
  max_turns: number | null
  max_cost_usd: number | null
  projects: unknown[]
  preload_memory_limit: number
  template_hash: string
  last_session_at: Date | null
  deleted_at: Date | null
  created_at: Date
  created_by: string
  updated_at: Date
}

export const Agent = defineEntity({
  name: 'Agent',
  tableName: 'agent',
  properties: {
    id: p.uuid().primary(),
    name: p.text().nullable(),
    model: p.text(),
    prompt: p.text().nullable(),
    tools: p.json<unknown[]>(),
    harness_id: p.text(),
    harness_image: p.text(),
    repo_url: p.text().nullable(),
    branch: p.text(),
    setup_cmd: p.text().nullable(),
    pfp_url: p.text().nullable(),
    mcp_servers: p.json<string[]>(),
    env_vars: p.json<Record<string, string>>(),
    env_var_hosts: p.json<Record<string, string[]>>(),
    allow_out: p.json<string[]>(),
    deny_out: p.json<string[]>(),
    resources: p.json<ResourceRequirements>().nullable(),
    permissions: p.json<PermissionPolicy>().defaultRaw(`'{"default": "allow"}'`),
    max_turns: p.integer().nullable(),
    max_cost_usd: p.double().nullable(),
    projects: p.json<unknown[]>(),
    preload_memory_limit: p.integer(),
    template_hash: p.text(),
    last_session_at: p.datetime(3).nullable(),
    deleted_at: p.datetime(3).nullable(),
    created_at: p.datetime(3),
    created_by: p.text(),
    updated_at: p.datetime(3),
  },
})
