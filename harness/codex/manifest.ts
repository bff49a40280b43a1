import path from 'node:path'
import type { HarnessContext, HarnessManifest } from '../../supervisor/harness.ts'

const KEY = 'LAP_GATEWAY_KEY'
/** Milliseconds without a word of a stream; how long a model may think is the gateway's business. */
const silenceMaxMs = 24 * 3_600_000

/** https://github.com/openai/codex/blob/main/docs/config.md */
const configuration = ({ gateway }: HarnessContext): string => `model = ${JSON.stringify(gateway.model)}
model_provider = "litellm"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false

[model_providers.litellm]
name = "LiteLLM"
base_url = ${JSON.stringify(gateway.url)}
env_key = "${KEY}"
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
`

const manifest: HarnessManifest = {
  id: 'codex',
  name: 'Codex',
  supportsTui: true,
  acp: (context) => ({
    command: [process.execPath, path.join(context.dir, 'node_modules/@agentclientprotocol/codex-acp/dist/index.js')],
    env: {
      CODEX_HOME: path.join(context.home, '.codex'),
      [KEY]: context.gateway.key,
      MODEL_PROVIDER: 'litellm',
      // The mode by itself overrides the configuration, and writes folders into the workspace.
      INITIAL_AGENT_MODE: 'agent-full-access',
      NO_BROWSER: '1',
      // Requests to the model that nobody has asked for.
      CODEX_ACP_PROMPT_SUGGESTIONS: 'false',
    },
    files: { '.codex/config.toml': configuration(context) },
    modes: { unattended: 'agent-full-access', asking: 'read-only' },
  }),
}
export default manifest
