import path from 'node:path'
import type { McpServer } from '../../domain/mcp.ts'
import { type PermissionKind, type PermissionRule, allowsAll, ruleFor } from '../../domain/permission.ts'
import type { HarnessContext, HarnessManifest, SessionSettings } from '../../supervisor/harness.ts'
import { claudeEnvironment } from '../claude-agent-sdk/environment.ts'
import { instructionsOf } from '../claude-agent-sdk/instructions.ts'

const TOOLS: Record<PermissionKind, string[]> = {
  execute: ['Bash'],
  edit: ['Edit', 'Write', 'NotebookEdit'],
  fetch: ['WebFetch', 'WebSearch'],
  other: [],
}

/** What is neither allowed nor denied it asks the person in front of it. */
const permissionsOf = ({ permissions, mcp }: SessionSettings): object => {
  if (allowsAll(permissions)) return { defaultMode: 'bypassPermissions' }
  const tools = { ...TOOLS, other: mcp.map(({ name }) => `mcp__${name}`) }
  const ruled = (rule: PermissionRule): string[] =>
    Object.entries(tools).flatMap(([kind, names]) =>
      ruleFor(permissions, kind as PermissionKind) === rule ? names : [],
    )
  return { defaultMode: 'default', allow: ruled('allow'), deny: ruled('deny') }
}

/** https://code.claude.com/docs/en/settings */
const settingsOf = (settings: SessionSettings): object => ({
  permissions: permissionsOf(settings),
  // Dialogs that come before the first prompt.
  skipDangerousModePermissionPrompt: true,
  disableAutoMode: 'disable',
})

/** What it has asked its user before, and would ask again. */
const stateOf = (workspace: string): object => ({
  hasCompletedOnboarding: true,
  theme: 'dark',
  bypassPermissionsModeAccepted: true,
  projects: { [workspace]: { hasTrustDialogAccepted: true, hasCompletedProjectOnboarding: true } },
})

const serverOf = (server: McpServer): object =>
  server.transport === 'http'
    ? { type: 'http', url: server.url, headers: server.headers ?? {} }
    : { type: 'stdio', command: server.command, args: server.args ?? [], env: server.env ?? {} }

const PROMPT = '.claude/lap-prompt.md'
const SERVERS = '.claude/lap-mcp.json'

const filesOf = ({ workspace }: HarnessContext, settings: SessionSettings): Record<string, string> => ({
  '.claude/.claude.json': JSON.stringify(stateOf(workspace)),
  '.claude/settings.json': JSON.stringify(settingsOf(settings)),
  ...(settings.system === null ? {} : { [PROMPT]: settings.system }),
  ...(allowsAll(settings.permissions) ? {} : { '.claude/CLAUDE.md': instructionsOf(workspace) }),
  ...(settings.mcp.length === 0
    ? {}
    : {
        [SERVERS]: JSON.stringify({ mcpServers: Object.fromEntries(settings.mcp.map((s) => [s.name, serverOf(s)])) }),
      }),
})

const manifest: HarnessManifest = {
  id: 'claude-code',
  name: 'Claude Code',
  supportsTui: true,
  terminal: (context, settings) => ({
    command: [
      path.join(context.dir, 'node_modules/@anthropic-ai/claude-code/bin/claude.exe'),
      ...(settings.system === null ? [] : ['--append-system-prompt-file', path.join(context.home, PROMPT)]),
      // Settings of the workspace have hooks and MCP servers run, and allow tools.
      ...(allowsAll(settings.permissions) ? [] : ['--setting-sources', 'user']),
      ...(settings.mcp.length === 0 ? [] : ['--mcp-config', path.join(context.home, SERVERS)]),
    ],
    env: claudeEnvironment(context),
    files: filesOf(context, settings),
  }),
}
export default manifest
