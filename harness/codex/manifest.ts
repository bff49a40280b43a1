import path from 'node:path'
import type { HarnessManifest } from '../../supervisor/harness.ts'
import { GATEWAY_KEY, codexConfiguration } from './configuration.ts'

const manifest: HarnessManifest = {
  id: 'codex',
  name: 'Codex',
  supportsTui: false,
  acp: (context) => ({
    command: [process.execPath, path.join(context.dir, 'node_modules/@agentclientprotocol/codex-acp/dist/index.js')],
    env: {
      CODEX_HOME: path.join(context.home, '.codex'),
      [GATEWAY_KEY]: context.gateway.key,
      MODEL_PROVIDER: 'litellm',
      // The mode by itself overrides the configuration, and writes folders into the workspace.
      INITIAL_AGENT_MODE: 'agent-full-access',
      NO_BROWSER: '1',
      // Requests to the model that nobody has asked for.
      CODEX_ACP_PROMPT_SUGGESTIONS: 'false',
    },
    title: 'Session',
    files: { '.codex/config.toml': codexConfiguration(context, { approval: 'never', sandbox: 'danger-full-access' }) },
    // By year, month and day. Its databases are made from them.
    sessionFiles: (session) => [`.codex/sessions/*/*/*/rollout-*-${session}.jsonl`],
    modes: { unattended: 'agent-full-access', asking: 'read-only' },
  }),
}
export default manifest
