import path from 'node:path'
import { PERMISSION_KINDS, type PermissionKind, type PermissionPolicy, ruleFor } from '../../domain/permission.ts'
import type { HarnessContext, HarnessManifest } from '../../supervisor/harness.ts'
import { modelLimitOf } from '../../supervisor/model-limit.ts'

/** How long a model may think is the gateway's business. The greatest delay that a timer takes. */
const timeoutMs = 2 ** 31 - 1

/** https://qwenlm.github.io/qwen-code-docs/en/users/configuration/settings */
const settings = ({ gateway, env }: HarnessContext): object => ({
  security: { auth: { selectedType: 'openai' }, folderTrust: { enabled: false } },
  model: {
    name: gateway.model,
    generationConfig: {
      timeout: timeoutMs,
      modalities: { image: true, pdf: true },
      contextWindowSize: modelLimitOf(env).context,
      samplingParams: { max_tokens: modelLimitOf(env).output },
    },
  },
  // Tools that the model has to look for first: not every model does.
  tools: { toolSearch: { enabled: false } },
  general: { disableAutoUpdate: true, disableUpdateNag: true, enableAutoUpdate: false },
  privacy: { usageStatisticsEnabled: false },
  telemetry: { enabled: false },
  // Requests to the model that nobody has asked for.
  memory: { enableManagedAutoMemory: false, enableManagedAutoDream: false },
  ui: { enableFollowupSuggestions: false },
  context: { fileName: ['QWEN.md', 'AGENTS.md'] },
})

const TOOLS: Record<PermissionKind, string[]> = {
  execute: ['run_shell_command'],
  edit: ['edit'],
  fetch: ['web_fetch', 'web_search'],
  other: ['mcp__*'],
}

/**
 * Over those of the workspace, which would allow tools and have hooks run: what has to be asked for is asked for whatever else is allowed. Its MCP servers wait for
 * somebody to approve them.
 */
const rulesOf = (permissions: PermissionPolicy): object => ({
  disableAllHooks: true,
  permissions: {
    ask: PERMISSION_KINDS.filter((kind) => ruleFor(permissions, kind) !== 'allow').flatMap((kind) => TOOLS[kind]),
  },
})

const RULES = '.qwen/rules.json'

const manifest: HarnessManifest = {
  id: 'qwen-code',
  name: 'Qwen Code',
  supportsTui: false,
  acp: (context) => ({
    // Not its `cli-entry.js`, which only starts this one in a second process.
    command: [
      process.execPath,
      '--expose-gc',
      path.join(context.dir, 'node_modules/@qwen-code/qwen-code/cli.js'),
      '--acp',
    ],
    env: {
      OPENAI_BASE_URL: context.gateway.url,
      OPENAI_API_KEY: context.gateway.key,
      OPENAI_MODEL: context.gateway.model,
      // By itself it starts itself again with other flags, and waits for that.
      QWEN_CODE_NO_RELAUNCH: '1',
      QWEN_CODE_SYSTEM_SETTINGS_PATH: path.join(context.home, RULES),
    },
    ruled: { files: (permissions) => ({ [RULES]: JSON.stringify(rulesOf(permissions)) }) },
    files: { '.qwen/settings.json': JSON.stringify(settings(context)) },
    instructionsFile: '.qwen/QWEN.md',
    sessionFiles: (session, workspace) => [
      `.qwen/projects/${workspace.replaceAll(/[^a-zA-Z0-9]/g, '-')}/chats/${session}.jsonl`,
    ],
    workspaceField: 'cwd',
    modes: { unattended: 'yolo', asking: 'default' },
  }),
}
export default manifest
