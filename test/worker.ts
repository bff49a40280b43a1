import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../tools/dev/ports.ts'

const script = fileURLToPath(new URL('../bin/worker.ts', import.meta.url))
const readyTimeoutMs = 60_000

/** A running `bin/worker.ts`. */
export type WorkerProcess = { stop(): Promise<void> }

/**
 * Starts a worker and waits until it polls.
 * @param env its settings
 */
export const startWorkerProcess = async (env: Record<string, string>): Promise<WorkerProcess> => {
  const port = await freePort()
  const child = spawn(process.execPath, [script], {
    env: { PATH: process.env['PATH'] ?? '', ...env, HOST: '127.0.0.1', WORKER_METRICS_PORT: String(port) },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (text: Buffer) => (output = (output + text.toString()).slice(-20_000)))
  const exited = once(child, 'exit')
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
    await exited
  }
  const answers = (): Promise<boolean> =>
    fetch(`http://127.0.0.1:${port}/readyz`).then(
      ({ ok }) => ok,
      () => false,
    )
  for (const end = Date.now() + readyTimeoutMs; !(await answers()); await sleep(50)) {
    if (child.exitCode !== null) throw new Error(`the worker ended with ${child.exitCode}:\n${output}`)
    if (Date.now() < end) continue
    await stop()
    throw new Error(`the worker was not ready in time:\n${output}`)
  }
  return { stop }
}
