/** `npm start`: the whole platform on this machine. Its parts are under `tools/dev/`. */
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { AlreadyRunning, takeLock } from '../tools/dev/lock.ts'
import { onNpmEnded } from '../tools/dev/npm.ts'
import { assertPortIsFree, readSettings } from '../tools/dev/settings.ts'
import { type Stack, startStack } from '../tools/dev/stack.ts'

const root = fileURLToPath(new URL('..', import.meta.url))

/** The first signal ends everything in order. */
const end = new AbortController()
const told = new Promise<void>((resolve) => {
  const tell = (): void => {
    if (end.signal.aborted) return
    console.log('\nEnding everything, in order.\n')
    end.abort(new Error('Ended before the start was complete.'))
    resolve()
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, tell)
  onNpmEnded(tell)
})

const main = async (): Promise<void> => {
  const settings = await readSettings(root)
  const lock = await takeLock(settings.dataDir)
  try {
    await assertPortIsFree(settings)
    const relative = path.relative(process.cwd(), settings.dataDir)
    console.log(`\nLAP, with its data in ${relative.startsWith('..') ? settings.dataDir : relative || '.'}\n`)
    await using cleanup = new AsyncDisposableStack()
    const stack: Stack = await startStack({ root, settings, lock, signal: end.signal })
    cleanup.defer(() => stack.stop())
    await Promise.race([told, stack.failed])
  } finally {
    await lock.release()
  }
}

try {
  await main()
} catch (error) {
  if (!end.signal.aborted) {
    const isExpected = error instanceof AlreadyRunning || Error.isError(error)
    console.error(`\n${isExpected ? error.message : String(error)}`)
    process.exitCode = 1
  }
}
if (end.signal.aborted) console.log('\nEverything has ended.')
process.exit()
