import { loadConfig } from '../config/config.ts'
import type { Config } from '../config/config.ts'
import { readEnv } from '../config/env.ts'
import { ConfigError } from '../config/problems.ts'

/** Settings of a process, from its environment and `.env`. Wrong ones are all listed, and end it with 1. */
export const settingsOrExit = (root: string): Config => {
  try {
    return loadConfig(readEnv(root))
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    console.error(error.message)
    return process.exit(1)
  }
}
