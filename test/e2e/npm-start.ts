import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { settingDefaults } from '../../config/env.ts'
import { endProcess, type ProcessRecord } from '../../tools/dev/process.ts'
import { processesIn } from '../faults/processes.ts'
import { watchOver } from '../servers.ts'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../..', import.meta.url))

/** Installs from the registry if npm's cache is empty. */
const START_TIMEOUT_MS = 8 * 60_000

/** A fresh clone of what is committed, as a newcomer has it. */
export type Clone = { dir: string; dataDir: string; [Symbol.asyncDispose](): Promise<void> }

export const clone = async (): Promise<Clone> => {
  const base = await mkdtemp(path.join(os.tmpdir(), 'lap-e2e-'))
  await watchOver([], base)
  const dir = path.join(base, 'lap')
  await run('git', ['clone', '--quiet', root, dir])
  return {
    dir,
    dataDir: path.join(base, 'data'),
    [Symbol.asyncDispose]: async () => {
      for (const record of processesOf({ dir })) await endProcess(record, 'SIGKILL', 0)
      await rm(base, { recursive: true, force: true })
    },
  }
}

/** Whatever runs with the clone's folder, or the folder of its data beside it, in its command, environment or as its directory. */
export const processesOf = ({ dir }: Pick<Clone, 'dir'>): (ProcessRecord & { command: string })[] =>
  processesIn(path.dirname(dir))

/** The environment of a terminal: nothing of npm, jest or this project's settings, and not this repository's programs. */
const terminalEnv = (): Record<string, string> => {
  const settings = new Set(settingDefaults().map(({ name }) => name))
  const isForeign = (name: string): boolean =>
    settings.has(name) ||
    /^(CONTAINER_ENV_|TEST_|JEST_|NODE_|INIT_CWD$|COLOR$|npm_(?!config_(registry|cache|userconfig)$))/.test(name)
  const env = Object.fromEntries(
    Object.entries(process.env).filter(
      (entry): entry is [string, string] => entry[1] !== undefined && !isForeign(entry[0]),
    ),
  )
  const folders = (env['PATH'] ?? '').split(path.delimiter)
  return { ...env, PATH: folders.filter((folder) => !/node_modules|node-gyp-bin/.test(folder)).join(path.delimiter) }
}

/** How the command ended, and what of the clone still ran when the shell would have prompted again. */
export type Ending = { code: number | null; signal: NodeJS.Signals | null; left: string[] }

/** `npm start` in a terminal. */
export type Terminal = {
  /** What it has printed so far. */
  output(): string
  ended: Promise<Ending>
  /** Ctrl-C: the terminal signals its whole foreground process group. */
  ctrlC(): Promise<Ending>
  /** Waits for a text. @throws Error with the output when it ended without */
  prints(text: string): Promise<void>
  /** The commands that it printed, as they are. */
  commands(): [agent: string, session: string, message: string]
  /** Value of a line of the banner. */
  shown(name: string): string
}

export const npmStart = ({ dir, dataDir }: Clone, settings: Record<string, string> = {}): Terminal => {
  const child: ChildProcess = spawn('npm', ['start'], {
    cwd: dir,
    env: { ...terminalEnv(), LAP_DATA_DIR: dataDir, PORT: '0', ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  let output = ''
  child.stdout?.on('data', (chunk: Buffer) => (output += chunk.toString()))
  child.stderr?.on('data', (chunk: Buffer) => (output += chunk.toString()))
  let left: string[] = []
  child.once('exit', () => (left = processesOf({ dir }).map(({ command }) => command)))
  let isOver = false
  const ended = once(child, 'close').then(([code, signal]): Ending => {
    isOver = true
    return { code, signal, left }
  })
  // The banner comes last: a name may stand in the lines of progress too.
  const line = (start: string): string => {
    const found = output.split('\n').findLast((each) => each.startsWith(start))
    if (found === undefined) throw new Error(`no line "${start}…" in:\n${output}`)
    return found
  }
  return {
    output: () => output,
    ended,
    ctrlC: () => {
      process.kill(-(child.pid ?? 0), 'SIGINT')
      return ended
    },
    prints: async (text) => {
      const deadline = Date.now() + START_TIMEOUT_MS
      while (!output.includes(text)) {
        if (isOver || Date.now() > deadline)
          throw new Error(`npm start ${isOver ? 'ended' : 'is not ready'}:\n${output}`)
        await sleep(100)
      }
    },
    commands: () => [line('AGENT='), line('SESSION='), line('curl ')],
    shown: (name) =>
      line(`  ${name}  `)
        .slice(name.length + 2)
        .trim(),
  }
}

/** The last line of the banner. */
export const READY = 'Ctrl-C ends everything'

/** What is in `running.json`. */
export const runningIn = async (dataDir: string): Promise<{ pid: number; url: string; [key: string]: unknown }> =>
  JSON.parse(await readFile(path.join(dataDir, 'running.json'), 'utf8'))

/** Lines pasted into a shell, one after the other. @returns what they print */
export const paste = async (lines: string[]): Promise<string> => {
  const { stdout } = await run('bash', ['-c', lines.join('\n')], { env: terminalEnv(), timeout: 120_000 })
  return stdout.trim()
}

/** Text of a reply to a message. */
export const textOf = (reply: string): string => {
  const { parts }: { parts?: { type: string; text?: string }[] } = JSON.parse(reply)
  if (parts === undefined) throw new Error(`not a reply: ${reply}`)
  return parts.map(({ text }) => text ?? '').join('')
}
