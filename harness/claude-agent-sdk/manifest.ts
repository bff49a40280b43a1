import path from 'node:path'
import type { HarnessManifest } from '../../supervisor/harness.ts'
import { claudeEnvironment } from './environment.ts'
import { instructionsOf } from './instructions.ts'

// Titles and suggestions of next prompts are requests to the model that nobody has asked for.
const options = { promptSuggestions: false, title: 'Session' }

const manifest: HarnessManifest = {
  id: 'claude-agent-sdk',
  name: 'Claude Agent SDK',
  supportsTui: false,
  acp: (context) => ({
    command: [
      process.execPath,
      path.join(context.dir, 'node_modules/@agentclientprotocol/claude-agent-acp/dist/index.js'),
    ],
    env: claudeEnvironment(context),
    sessionMeta: { claudeCode: { options } },
    ruled: {
      // Settings of the workspace have hooks and MCP servers run, and allow tools.
      sessionMeta: { claudeCode: { options: { ...options, settingSources: ['user'] } } },
      files: () => ({ '.claude/CLAUDE.md': instructionsOf(context.workspace) }),
    },
    sessionFiles(session, workspace) {
      const projects = `.claude/projects/${workspace.replaceAll(/[^a-zA-Z0-9]/g, '-')}`
      // The folder is there when it has had subagents or large results.
      return [`${projects}/${session}.jsonl`, `${projects}/${session}`]
    },
    modes: { unattended: 'bypassPermissions', asking: 'default' },
  }),
}
export default manifest
