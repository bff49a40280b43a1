import { setTimeout as sleep } from 'node:timers/promises'
import type { TerminalClient } from './client.ts'

/** What the programs of terminals show when they wait for a prompt, and no dialog. */
export const PROMPTS = {
  'claude-code': /^❯\s*$/m,
  'codex-terminal': /^› Ask Codex/m,
} as const

/** Codex shows it, a moment after its prompt, where something has to be asked for. */
const RESTRICTED = /Open restricted/

/** Resolves when the program waits to be typed into. @param isRuled something has to be asked for in its session */
export const awaitPrompt = async (
  terminal: TerminalClient,
  id: keyof typeof PROMPTS,
  { isRuled = false } = {},
): Promise<void> => {
  if (isRuled && id === 'codex-terminal') {
    // An Enter that comes at once is not taken.
    for (await terminal.until(RESTRICTED); RESTRICTED.test(terminal.screen().join('\n')); await sleep(500))
      terminal.type('\r')
  }
  await terminal.until(PROMPTS[id])
}
