/**
 * Instructions of the user that are those of the workspace, which Claude reads only together with the settings of the workspace. One that is not there is passed over.
 * https://code.claude.com/docs/en/memory
 */
export const instructionsOf = (workspace: string): string =>
  ['CLAUDE.md', '.claude/CLAUDE.md', 'CLAUDE.local.md'].map((file) => `@${workspace}/${file}\n`).join('')
