import path from 'node:path'
import type { HarnessContext, HarnessManifest } from '../../supervisor/harness.ts'

/** The gateway's base without `/v1`, which the SDK adds by itself. */
const baseOf = (url: string): string => url.replace(/\/v1$/, '')

/** https://code.claude.com/docs/en/settings#environment-variables */
const environment = ({ gateway, home }: HarnessContext): Record<string, string> => ({
  ANTHROPIC_BASE_URL: baseOf(gateway.url),
  ANTHROPIC_AUTH_TOKEN: gateway.key,
  ANTHROPIC_MODEL: gateway.model,
  ANTHROPIC_DEFAULT_OPUS_MODEL: gateway.model,
  ANTHROPIC_DEFAULT_SONNET_MODEL: gateway.model,
  ANTHROPIC_DEFAULT_HAIKU_MODEL: gateway.model,
  CLAUDE_CODE_SUBAGENT_MODEL: gateway.model,
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
})

const manifest: HarnessManifest = {
  id: 'claude-agent-sdk',
  name: 'Claude Agent SDK',
  supportsTui: false,
  acp: (context) => ({
    command: [
      process.execPath,
      path.join(context.dir, 'node_modules/@agentclientprotocol/claude-agent-acp/dist/index.js'),
    ],
    env: {
      ...environment(context),
      // Its shell reads this file before each command, and not the one that BASH_ENV names.
      CLAUDE_ENV_FILE: context.env['BASH_ENV'] ?? '',
    },
    // Titles and suggestions of next prompts are requests to the model that nobody has asked for.
    sessionMeta: { claudeCode: { options: { promptSuggestions: false, title: 'Session' } } },
    modes: { unattended: 'bypassPermissions', asking: 'default' },
  }),
}
export default manifest
