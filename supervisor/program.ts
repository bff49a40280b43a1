import { type ChildProcess, spawn } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'
import type { HarnessExit } from './harness.ts'
import { lineSplitter } from './log.ts'

/** The program of a harness. */
export type Program = {
  /** In messages. */
  name: string
  file: string
  args: string[]
  cwd: string
  /** Its whole environment. */
  env: Record<string, string>
  /** Every line that it writes, on standard error and, unless that is a `pipe`, on standard output. */
  onLine: (line: string) => void
  /** `pipe`: standard input and output carry a protocol. */
  stdio: 'lines' | 'pipe'
}

export type RunningProgram = {
  pid: number | null
  /** null unless `pipe`. */
  stdin: Writable | null
  stdout: Readable | null
  /** Resolves when it has ended, whoever ended it. */
  exited: Promise<HarnessExit>
  /** What happened, and its last lines. */
  exitText(exit: HarnessExit): string
  /** SIGTERM, and SIGKILL if it is still there a little later. */
  stop(): Promise<void>
  kill(): void
}

const graceMs = 1_500
const tailMax = 50
/** From the end of a process to the last of what it wrote; its children may hold the pipe open for ever. */
const lastWordsMs = 200

const exitOf = (child: ChildProcess, tail: string[]): Promise<HarnessExit> =>
  new Promise((resolve) => {
    child.once('error', (error) => resolve({ code: null, signal: null, tail: [...tail, error.message] }))
    child.once('exit', (code, signal) => {
      const done = (): void => resolve({ code, signal, tail: [...tail] })
      const timer = setTimeout(done, lastWordsMs)
      child.once('close', () => {
        clearTimeout(timer)
        done()
      })
    })
  })

export const startProgram = ({ name, file, args, cwd, env, onLine, stdio }: Program): RunningProgram => {
  const piped = stdio === 'pipe'
  const child = spawn(file, args, { cwd, env, stdio: [piped ? 'pipe' : 'ignore', 'pipe', 'pipe'] })
  const tail: string[] = []
  const hear = (line: string): void => {
    tail.push(line)
    if (tail.length > tailMax) tail.shift()
    onLine(line)
  }
  const heard = piped ? [child.stderr] : [child.stdout, child.stderr]
  for (const stream of heard) stream?.setEncoding('utf8').on('data', lineSplitter(hear))
  // Whoever still writes to it learns by `exited` that it is gone.
  child.stdin?.on('error', () => undefined)
  const exited = exitOf(child, tail)
  return {
    pid: child.pid ?? null,
    stdin: child.stdin,
    stdout: piped ? child.stdout : null,
    exited,
    exitText({ code, signal, tail }) {
      const how = signal === null ? `${name} ended with ${code}` : `${name} was ended by ${signal}`
      return [how, ...tail.slice(-10)].join('\n')
    },
    async stop() {
      child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), graceMs)
      await exited
      clearTimeout(timer)
    },
    kill: () => void child.kill('SIGKILL'),
  }
}
