import { spawn } from 'node:child_process'

/** Runs a command to its end. @throws Error with the last lines of what it said, when it fails */
export const run = async (
  command: string,
  args: string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<string> => {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options })
  let output = ''
  let all = ''
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString()
    all = (all + chunk.toString()).slice(-4_000)
  })
  child.stderr.on('data', (chunk: Buffer) => (all = (all + chunk.toString()).slice(-4_000)))
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  if (code !== 0) throw new Error(`${command} ${args.join(' ').slice(0, 200)} ended with ${code}:\n${all.trim()}`)
  return output
}
