import { createRequire } from 'node:module'
import path from 'node:path'
import { type HarnessContext, HarnessGone } from '../../supervisor/harness.ts'
import { type RunningProgram, startProgram } from '../../supervisor/program.ts'
import { processEnv } from './settings.ts'

/** An opencode server, from its first moment. */
export type ServerProcess = RunningProgram & {
  /** Its address. @throws HarnessGone when it ends before it listens, with its last lines */
  listening(): Promise<string>
}

/** It takes 3 s; a machine that starts many at once takes longer. */
const startTimeoutMs = 120_000

/** The program of the installed package, which its install script puts in the launcher's place. */
const programOf = (dir: string): string => {
  const require = createRequire(path.join(dir, 'package.json'))
  const manifest = require.resolve('opencode-ai/package.json')
  const { bin } = require(manifest) as { bin: { opencode: string } }
  return path.join(path.dirname(manifest), bin.opencode)
}

/** Starts `opencode serve` on a port of its choice. */
export const spawnServer = (context: HarnessContext, password: string): ServerProcess => {
  const { promise: address, resolve: found } = Promise.withResolvers<string>()
  const program = startProgram({
    name: 'opencode',
    file: programOf(context.dir),
    args: ['serve', '--hostname', '127.0.0.1', '--port', '0', '--print-logs', '--log-level', 'WARN'],
    cwd: context.home,
    env: processEnv(context, password),
    stdio: 'lines',
    onLine(line) {
      context.log(`opencode: ${line}`)
      const url = /listening on (http:\/\/[\d.]+:\d+)/.exec(line)?.[1]
      if (url !== undefined) found(url)
    },
  })
  return {
    ...program,
    async listening() {
      const timer = setTimeout(program.kill, startTimeoutMs)
      const first = await Promise.race([address, program.exited])
      clearTimeout(timer)
      if (typeof first !== 'string') throw new HarnessGone(program.exitText(first))
      return first
    },
  }
}
