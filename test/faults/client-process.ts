import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { MASTER_KEY, type Stack } from './stack.ts'

const program = fileURLToPath(new URL('long-client.ts', import.meta.url))
const run = promisify(execFile)

export type Got = { text: string; tries: number }

/** Runs a client of long-client.ts, of that kind, on a session. @param env settings of its process beside the usual ones */
export const runClient = async (
  stack: Stack,
  kind: 'blocking' | 'repeated' | 'streamed' | 'events',
  { sessionId, text = '' }: { sessionId: string; text?: string },
  env: Record<string, string> = {},
): Promise<Got> => {
  const url = `${stack.api().url}/api/v1/managed_agents/sessions/${sessionId}`
  const { stdout } = await run(process.execPath, [program, kind, url, text], {
    env: { ...process.env, ...env, KEY: MASTER_KEY },
  })
  return JSON.parse(stdout) as Got
}
