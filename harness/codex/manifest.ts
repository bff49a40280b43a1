import path from 'node:path'
import type { HarnessManifest } from '../../supervisor/harness.ts'
import { GATEWAY_KEY, codexConfiguration, instructionsOf, trustTable } from './configuration.ts'

const FREE = { approval: 'never', sandbox: 'danger-full-access' } as const
const CONFIGURATION = '.codex/config.toml'

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
    files: { [CONFIGURATION]: codexConfiguration(context, FREE) },
    ruled: {
      files: () => ({
        [CONFIGURATION]: codexConfiguration(context, { ...FREE, tables: [trustTable(context, 'untrusted')] }),
        ...instructionsOf(context),
      }),
      // The adapter has Codex trust the path of a session, as it stands; Codex itself knows it without the stroke at its end.
      cwd: `${context.workspace}/`,
    },
    // By year, month and day. Its databases are made from them.
    sessionFiles: (session) => [`.codex/sessions/*/*/*/rollout-*-${session}.jsonl`],
    modes: { unattended: 'agent-full-access', asking: 'read-only' },
  }),
}
export default manifest
