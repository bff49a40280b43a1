import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import type { HarnessContext } from '../../supervisor/harness.ts'
import { modelLimitOf } from '../../supervisor/model-limit.ts'

/** Name of the variable with the gateway's key. */
export const GATEWAY_KEY = 'LAP_GATEWAY_KEY'
/** Milliseconds without a word of a stream; how long a model may think is the gateway's business. */
const silenceMaxMs = 24 * 3_600_000

/** Strings of JSON are strings of TOML, but for one character. */
export const tomlText = (value: string): string => JSON.stringify(value).replaceAll('\u007f', String.raw`\u007f`)

/** Whether Codex takes what the workspace has it run: settings, MCP servers, hooks, rules of what is allowed. By itself it trusts one in which it has once been free. */
export const trustTable = ({ workspace }: HarnessContext, level: 'trusted' | 'untrusted'): string =>
  `[projects.${tomlText(workspace)}]\ntrust_level = "${level}"`

/** Of a workspace that is not trusted Codex does not read this, either; but of its own home it does. */
export const instructionsOf = ({ workspace }: HarnessContext): Record<string, string> => {
  const file = path.join(workspace, 'AGENTS.md')
  return existsSync(file) ? { '.codex/AGENTS.md': readFileSync(file, 'utf8') } : {}
}

export type CodexSettings = {
  approval: 'never' | 'on-request'
  sandbox: 'danger-full-access' | 'read-only'
  /** Lines of TOML before the first table. */
  more?: string[]
  /** Tables of TOML. */
  tables?: string[]
}

/** `~/.codex/config.toml`, of conversation and terminal: https://github.com/openai/codex/blob/main/docs/config.md */
export const codexConfiguration = (
  { gateway, env }: HarnessContext,
  { approval, sandbox, more = [], tables = [] }: CodexSettings,
): string => `model = ${JSON.stringify(gateway.model)}
model_provider = "litellm"
model_context_window = ${modelLimitOf(env).context}
approval_policy = "${approval}"
sandbox_mode = "${sandbox}"
check_for_update_on_startup = false
${more.map((line) => `${line}\n`).join('')}
[model_providers.litellm]
name = "LiteLLM"
base_url = ${JSON.stringify(gateway.url)}
env_key = "${GATEWAY_KEY}"
wire_api = "responses"
supports_websockets = false
stream_idle_timeout_ms = ${silenceMaxMs}
# What is passing is tried again by the loopback gateway.
request_max_retries = 0
stream_max_retries = 0

[analytics]
enabled = false

[feedback]
enabled = false
${tables.map((table) => `\n${table}\n`).join('')}`
