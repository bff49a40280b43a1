import { randomUUID } from 'node:crypto'
import { insertAgent } from '../db/agents.ts'
import { createSession } from '../db/claims.ts'
import type { NewSession } from '../db/claims.ts'
import type { AgentRow } from '../db/entities/agent.ts'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import type { WebhookRow } from '../db/entities/webhook.ts'
import { reservePoolSandbox, sandboxWarm } from '../db/sandboxes.ts'
import type { Sql } from '../db/sql.ts'
import { insertWebhook } from '../db/webhooks.ts'
import type { NewWebhook } from '../db/webhooks.ts'
import { sandboxName } from '../domain/names.ts'
import { ALLOW_ALL } from '../domain/permission.ts'
import { WEBHOOK_EVENTS } from '../domain/webhook.ts'

/** Template hash of agents that a test does not give another. */
export const TEMPLATE = 'template-a'

export const buildAgent = (sql: Sql, over: Partial<AgentRow> = {}): Promise<AgentRow> =>
  insertAgent(sql, {
    id: randomUUID(), name: 'an agent', model: 'demo', prompt: null, tools: [], harness_id: 'light', harness_image: 'light:dev', repo_url: null,
    branch: 'main', setup_cmd: null, pfp_url: null, mcp_servers: [], env_vars: {}, env_var_hosts: {}, allow_out: [], deny_out: [], resources: null, projects: [],
    permissions: ALLOW_ALL, max_turns: null, max_cost_usd: null,
    preload_memory_limit: 10, template_hash: TEMPLATE, created_by: 'test', ...over,
  }) // prettier-ignore

export const newSession = (agentId: string, over: Partial<NewSession> = {}): NewSession => ({
  id: randomUUID(),
  agentId,
  title: null,
  request: {},
  model: 'demo',
  prompt: null,
  idempotencyKey: null,
  bodyHash: null,
  idleTimeoutMs: 60_000,
  maxAgeMs: 3_600_000,
  initialTurn: null,
  origin: null,
  createdBy: 'test',
  permissions: ALLOW_ALL,
  limits: { max_turns: null, max_cost_usd: null },
  claim: { templateHash: TEMPLATE, poolSize: 100, recentAgentHours: 24 },
  ...over,
})

/** A session as the front door makes it; fails when the key was known. */
export const buildSession = async (sql: Sql, agentId: string, over: Partial<NewSession> = {}) => {
  const made = await createSession(sql, newSession(agentId, over))
  if (made.existing) throw new Error('The idempotency key was known')
  return made
}

export const reservation = (agentId: string, templateHash = TEMPLATE) => {
  const id = randomUUID()
  return { id, name: sandboxName(id), agentId, templateHash, harnessId: 'light', image: 'light:dev', driver: 'local' }
}

export const buildWarmSandbox = async (
  sql: Sql,
  agentId: string,
  over: { templateHash?: string; endpoint?: string } = {},
): Promise<SandboxRow> => {
  const row = await reservePoolSandbox(sql, reservation(agentId, over.templateHash), {
    poolSize: 1_000,
    maxProvisioning: 1_000,
  })
  return (await sandboxWarm(sql, row!.id, over.endpoint ?? 'http://127.0.0.1:9'))!
}

/** One for all events of all agents, whose secret is stored as plain text. */
export const buildWebhook = (sql: Sql, over: Partial<NewWebhook> = {}): Promise<WebhookRow> =>
  insertWebhook(sql, {
    id: randomUUID(),
    url: 'https://example.com/hook',
    events: [...WEBHOOK_EVENTS],
    agent_id: null,
    description: null,
    enabled: true,
    sealedSecret: `whsec_${Buffer.alloc(32, 1).toString('base64')}`,
    ...over,
  })
