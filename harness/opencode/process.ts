import { type ChildProcess, spawn } from 'node:child_process'
import { createRequire } from 'node:module'
import path from 'node:path'
import { type HarnessContext, type HarnessExit, HarnessGone } from '../../supervisor/harness.ts'
import { lineSplitter } from '../../supervisor/log.ts'
import { processEnv } from './settings.ts'

/** An opencode server, from its first moment. */
export type ServerProcess = {
  pid: number | null
  /** Its address. @throws HarnessGone when it ends before it listens, with its last lines */
  listening(): Promise<string>
  /** Resolves when it has ended, whoever ended it. */
  exited: Promise<HarnessExit>
  /** SIGTERM, and SIGKILL if it is still there a little later. */
  stop(): Promise<void>
}

const graceMs = 1_500
/** It takes 3 s; a machine that starts many at once takes longer. */
const startTimeoutMs = 120_000
const tailMax = 50
/** From the end of a process to the last of what it wrote; its children may hold the pipe open for ever. */
const lastWordsMs = 200

/** The program of the installed package, which its install script puts in the launcher's place. */
const programOf = (dir: string): string => {
  const require = createRequire(path.join(dir, 'package.json'))
  const manifest = require.resolve('opencode-ai/package.json')
  const { bin } = require(manifest) as { bin: { opencode: string } }
  return path.join(path.dirname(manifest), bin.opencode)
}

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

export const exitText = ({ code, signal, tail }: HarnessExit): string => {
  const how = signal === null ? `opencode ended with ${code}` : `opencode was ended by ${signal}`
  return [how, ...tail.slice(-10)].join('\n')
}

/** Starts `opencode serve` on a port of its choice. */
export const spawnServer = (context: HarnessContext, password: string): ServerProcess => {
  const args = ['serve', '--hostname', '127.0.0.1', '--port', '0', '--print-logs', '--log-level', 'WARN']
  const child = spawn(programOf(context.dir), args, {
    cwd: context.home,
    env: processEnv(context, password),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const tail: string[] = []
  const exited = exitOf(child, tail)
  const address = new Promise<string>((resolve) => {
    const hear = (line: string): void => {
      tail.push(line)
      if (tail.length > tailMax) tail.shift()
      context.log(`opencode: ${line}`)
      const url = /listening on (http:\/\/[\d.]+:\d+)/.exec(line)?.[1]
      if (url !== undefined) resolve(url)
    }
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', lineSplitter(hear))
  })
  return {
    pid: child.pid ?? null,
    exited,
    async listening() {
      const timer = setTimeout(() => child.kill('SIGKILL'), startTimeoutMs)
      const first = await Promise.race([address, exited])
      clearTimeout(timer)
      if (typeof first !== 'string') throw new HarnessGone(exitText(first))
      return first
    },
    async stop() {
      child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), graceMs)
      await exited
      clearTimeout(timer)
    },
  }
}
