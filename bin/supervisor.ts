import { flushCompileCache } from 'node:module'
import { text } from 'node:stream/consumers'
import { errorText } from '../domain/errors.ts'
import type { SupervisorConfig } from '../domain/supervisor-protocol.ts'
import { findHarnesses } from '../harness/registry.ts'
import { createConfiguring } from '../supervisor/configuring.ts'
import { sha256 } from '../supervisor/http.ts'
import { type PodSettings, leaveLastWords, takePodSettings, takeTerminationLog } from '../supervisor/pod.ts'
import { createSandbox, type Failure } from '../supervisor/sandbox.ts'
import { type Server, listen } from '../supervisor/server.ts'

/**
 * Runs inside a sandbox. Its configuration comes on standard input, as one JSON document; in a pod, where that would be seen, over `POST /configure`,
 * from whoever shows the token of the hash in `LAP_TOKEN_SHA256`.
 */

const stopWithinMs = 2_800

const terminationLog = takeTerminationLog(process.env)

let server: Server | null = null
let ending = false
/** @param failure why it ends; null: it was told to */
const end = async (failure: Failure | null): Promise<void> => {
  if (ending) return
  ending = true
  const code = failure === null ? 0 : 1
  setTimeout(() => process.exit(code), stopWithinMs).unref()
  if (failure !== null && terminationLog !== null) leaveLastWords(terminationLog, failure)
  if (failure === null) server?.hangUp()
  await Promise.allSettled([server?.told(), sandbox.stop()])
  process.exit(code)
}

const sandbox = createSandbox({
  path: process.env['PATH'] ?? '/usr/local/bin:/usr/bin:/bin',
  out: (words) => process.stdout.write(words),
  onFailed: (failure) => void end(failure),
})
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void end(null))

const runConfigured = async (): Promise<void> => {
  const config = JSON.parse(await text(process.stdin)) as SupervisorConfig
  server = await listen(sandbox, { ...config.listen, tokenSha256: sha256(config.token) })
  void sandbox.start({ ...config, listen: { ...config.listen, port: server.port } })
}

const runInPod = async ({ listen: at, tokenSha256, harnessPaths, ...rest }: PodSettings): Promise<void> => {
  const harnesses = findHarnesses(harnessPaths)
  // It is waited for below, and by who configures.
  harnesses.catch(() => undefined)
  const configuring = (port: number) =>
    createConfiguring({
      ...rest,
      harnesses,
      listen: { ...at, port },
      start: (config) => void sandbox.start(config),
    })
  server = await listen(sandbox, { ...at, tokenSha256, configuring })
  process.stdout.write(`waiting for the configuration of sandbox ${rest.sandboxId} on port ${server.port}\n`)
  await harnesses
}

// For the next one, if `NODE_COMPILE_CACHE` is set: it then takes 0.2 s instead of 0.4 s, and 62 MB instead of 98. This one may live for hours.
const forget = sandbox.onChange(() => {
  flushCompileCache()
  forget()
})

try {
  const settings = takePodSettings(process.env)
  await (settings === null ? runConfigured() : runInPod(settings))
} catch (error) {
  process.stderr.write(`${errorText(error)}\n`)
  await end({ code: 'setup_failed', message: errorText(error) })
}
