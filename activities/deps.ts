import type { Config } from '../config/config.ts'
import type { AgentRow } from '../db/entities/agent.ts'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import type { Sql } from '../db/sql.ts'
import type { CheckpointStores } from '../domain/checkpoint.ts'
import type { SandboxDriver, SandboxSpec } from '../sandbox/driver.ts'
import type { SupervisorClient } from '../sandbox/supervisor-client.ts'
import { templateHash, templateOf } from '../sandbox/template.ts'
import type { Template } from '../sandbox/template.ts'
import { sandboxToken } from '../sandbox/token.ts'
import type { Telemetry } from '../telemetry/telemetry.ts'
import type { Temporal } from '../temporal/client.ts'
import type { OutboxRelay } from '../temporal/outbox-relay.ts'
import type { Sealer } from '../vault/seal.ts'
import type { Sender } from '../webhooks/post.ts'

/** All that activities work with; `bin/worker.ts` makes it. */
export type ActivityDeps = Telemetry & {
  sql: Sql
  driver: SandboxDriver
  supervisor: SupervisorClient
  temporal: Temporal
  /** Told after each commit that left something in the outbox. */
  outbox: Pick<OutboxRelay, 'kick'>
  sealer: Sealer
  webhooks: Sender
  checkpoints: CheckpointStores
  config: Pick<
    Config,
    | 'masterKey'
    | 'pool'
    | 'session'
    | 'checkpoint'
    | 'litellm'
    | 'preinstalledRepo'
    | 'containerEnv'
    | 'podSettings'
    | 'webhooks'
  >
  /** From 0 to 1, for jitter. */
  random: () => number
}

/** What a sandbox of this agent is made from now, and the hash by which it is claimed. */
export const templateNow = (deps: ActivityDeps, agent: AgentRow): { template: Template; hash: string } => {
  const { preinstalledRepo, containerEnv, podSettings, masterKey } = deps.config
  const open = (sealed: string): string => deps.sealer.open(sealed)
  const template = templateOf(agent, { preinstalledRepo, containerEnv, podSettings, open })
  return { template, hash: templateHash(masterKey, template) }
}

export const specOf = (deps: ActivityDeps, sandbox: SandboxRow, template: Template): SandboxSpec => ({
  sandboxId: sandbox.id,
  name: sandbox.name,
  agentId: sandbox.agent_id,
  templateHash: sandbox.template_hash,
  purpose: sandbox.purpose,
  harnessId: sandbox.harness_id,
  image: sandbox.image,
  repoUrl: template.repo_url,
  branch: template.branch,
  setupCommand: template.setup_cmd,
  env: template.env,
  resources: template.resources ?? null,
  allowOut: template.allow_out,
  denyOut: template.deny_out,
  token: sandboxToken(deps.config.masterKey, sandbox.id),
})
