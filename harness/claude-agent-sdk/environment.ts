import path from 'node:path'
import type { HarnessContext } from '../../supervisor/harness.ts'
import { modelLimitOf } from '../../supervisor/model-limit.ts'

/** The gateway's base without `/v1`, which the SDK adds by itself. */
const baseOf = (url: string): string => url.replace(/\/v1$/, '')

/** Of Claude, as a conversation and as a terminal: https://code.claude.com/docs/en/settings#environment-variables */
export const claudeEnvironment = ({ gateway, home, env }: HarnessContext): Record<string, string> => ({
  ANTHROPIC_BASE_URL: baseOf(gateway.url),
  ANTHROPIC_AUTH_TOKEN: gateway.key,
  ANTHROPIC_MODEL: gateway.model,
  ANTHROPIC_DEFAULT_OPUS_MODEL: gateway.model,
  ANTHROPIC_DEFAULT_SONNET_MODEL: gateway.model,
  ANTHROPIC_DEFAULT_HAIKU_MODEL: gateway.model,
  CLAUDE_CODE_SUBAGENT_MODEL: gateway.model,
  // It knows no model of that name, and would take it for one of Anthropic's newest.
  CLAUDE_CODE_MAX_CONTEXT_TOKENS: String(modelLimitOf(env).context),
  CLAUDE_CODE_MAX_OUTPUT_TOKENS: String(modelLimitOf(env).output),
  // Fields and headers that a gateway, or the provider behind it, may refuse.
  CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS: '1',
  CLAUDE_CONFIG_DIR: path.join(home, '.claude'),
  // It goes nowhere but to the gateway, and asks that for nothing but the turn.
  CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
  CLAUDE_CODE_DISABLE_AUTO_MEMORY: '1',
  CLAUDE_CODE_DISABLE_CRON: '1',
  // Tools that the model must look for first are of one maker's models only.
  ENABLE_TOOL_SEARCH: 'false',
  CLAUDE_CODE_DISABLE_TERMINAL_TITLE: '1',
  DISABLE_AUTOUPDATER: '1',
  // It would be another one with every version, and no gateway could keep its cache over it.
  CLAUDE_CODE_ATTRIBUTION_HEADER: '0',
  // How long a model may think is the gateway's business. The greatest delay that a timer takes.
  API_TIMEOUT_MS: String(2 ** 31 - 1),
  CLAUDE_ENABLE_STREAM_WATCHDOG: '0',
  CLAUDE_ENABLE_BYTE_WATCHDOG: '0',
  // As opencode does: four times, over half a minute.
  CLAUDE_CODE_MAX_RETRIES: '4',
  // It refuses to work unasked as root outside of a sandbox; this is one.
  IS_SANDBOX: '1',
  // Its shell reads this file before each command, and not the one that BASH_ENV names.
  CLAUDE_ENV_FILE: env['BASH_ENV'] ?? '',
})
