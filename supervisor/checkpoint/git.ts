import { spawn } from 'node:child_process'
import { StringDecoder } from 'node:string_decoder'

/** git refused, or took too long. */
export class GitFailed extends Error {
  override name = 'GitFailed'
}

/** In one working tree. The agent's own hooks and watchers are left out of it. */
export type Git = {
  workTree: string
  /** @returns what it says, without the last line break @throws GitFailed with its last words */
  run(...args: string[]): Promise<string>
  /** What it says, cut at NUL. */
  list(...args: string[]): AsyncGenerator<string>
  /** What it says, as it comes. */
  bytes(...args: string[]): AsyncGenerator<Buffer>
}

export type GitOptions = { workTree: string; gitDir?: string; env: Record<string, string>; signal: AbortSignal }

const QUIET = ['-c', 'core.fsmonitor=false', '-c', 'core.hooksPath=/dev/null', '-c', 'gc.auto=0']
const ENV = { GIT_OPTIONAL_LOCKS: '0', GIT_TERMINAL_PROMPT: '0', LC_ALL: 'C' }
const wordsMax = 2_000

export const createGit = ({ workTree, gitDir, env, signal }: GitOptions): Git => {
  const where = gitDir === undefined ? [] : [`--git-dir=${gitDir}`, `--work-tree=${workTree}`]

  async function* bytes(...args: string[]): AsyncGenerator<Buffer> {
    const child = spawn('git', [...QUIET, ...where, ...args], {
      cwd: workTree,
      env: { ...env, ...ENV },
      stdio: ['ignore', 'pipe', 'pipe'],
      signal,
      // Killed, it would leave its locks, and the agent could not commit any more.
      killSignal: 'SIGTERM',
    })
    let words = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => (words = (words + text).slice(-wordsMax)))
    const ended = new Promise<string | null>((resolve) => {
      child.once('error', (error) => resolve(error.message))
      child.once('close', (code) => resolve(code === 0 ? null : words.trim() || `git ended with ${code}`))
    })
    try {
      yield* child.stdout as AsyncIterable<Buffer>
      const failure = await ended
      if (failure !== null) throw new GitFailed(failure)
    } finally {
      child.kill('SIGTERM')
    }
  }

  return {
    workTree,
    bytes,
    async run(...args) {
      const parts: Buffer[] = []
      for await (const part of bytes(...args)) parts.push(part)
      return Buffer.concat(parts).toString('utf8').trimEnd()
    },
    async *list(...args) {
      const decoder = new StringDecoder('utf8')
      let rest = ''
      for await (const part of bytes(...args)) {
        const items = (rest + decoder.write(part)).split('\0')
        rest = items.pop() ?? ''
        yield* items
      }
    },
  }
}
