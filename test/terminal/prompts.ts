/** What the programs of terminals show when they wait for a prompt, and no dialog. */
export const PROMPTS = {
  'claude-code': /^❯\s*$/m,
  'codex-terminal': /^› Ask Codex/m,
} as const
