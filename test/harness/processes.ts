import { readFileSync, readdirSync } from 'node:fs'

/** Environment and command lines of all processes that came from a sandbox. */
export const processTexts = (sandboxId: string): string =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const environ = readFileSync(`/proc/${pid}/environ`, 'latin1')
        return environ.includes(`LAP_SANDBOX_ID=${sandboxId}`)
          ? [environ, readFileSync(`/proc/${pid}/cmdline`, 'latin1')]
          : []
      } catch {
        return []
      }
    })
    .join('\n')
