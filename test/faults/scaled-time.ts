import childProcess from 'node:child_process'
import http from 'node:http'
import { createRequire, syncBuiltinESMExports } from 'node:module'
import net from 'node:net'
import timersPromises from 'node:timers/promises'
import timers from 'node:timers'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { Agent, setGlobalDispatcher } from 'undici'

/**
 * Makes two hours as short as `LONG_TURN_MS` for what waits in a process: loaded first, with `--import`, it shortens every wait of `SHORTEST_MS` and more, whoever asks for it:
 * our own code, libraries with their defaults, sockets, servers. What is shorter stays as it is, since a turn of a test is longer than that anyway. Supervisors that the
 * process starts are given the same. Not reached are Temporal's core and Postgres, whose limits are a matter of settings.
 */

const TWO_HOURS_MS = 2 * 60 * 60_000
export const LONG_TURN_MS = 75_000
/** So long a busy machine may take for what has a limit of minutes, such as the start of a sandbox. */
export const SHORTEST_MS = 20_000

const scaled = (ms: number): number =>
  ms < SHORTEST_MS ? ms : Math.max(SHORTEST_MS, (ms * LONG_TURN_MS) / TWO_HOURS_MS)

type Wait = (callback: (...args: unknown[]) => void, ms?: number, ...args: unknown[]) => unknown

const shorten = <T extends object>(holder: T, name: keyof T): void => {
  const wait = holder[name] as Wait
  const shorter: Wait = (callback, ms = 0, ...args) => wait.call(holder, callback, scaled(ms), ...args)
  // `promisify(setTimeout)` and the like find what they need on the function.
  holder[name] = Object.assign(shorter, wait) as T[keyof T]
}

const shortenTimers = (): void => {
  for (const name of ['setTimeout', 'setInterval'] as const) {
    shorten(globalThis, name)
    timers[name] = globalThis[name] as never
  }
  const { setTimeout: sleep } = timersPromises
  timersPromises.setTimeout = (ms = 0, ...args: unknown[]) => sleep(scaled(ms), ...(args as []))
  const { timeout } = AbortSignal
  AbortSignal.timeout = (ms) => timeout.call(AbortSignal, scaled(ms))
  // undici keeps time by itself.
  const undici = path.dirname(createRequire(import.meta.url).resolve('undici/package.json'))
  const own = createRequire(import.meta.url)(path.join(undici, 'lib', 'util', 'timers.js')) as { setTimeout: Wait; setFastTimeout: Wait } // prettier-ignore
  shorten(own, 'setTimeout')
  shorten(own, 'setFastTimeout')
  // The undici inside of Node does so, too: its `fetch` goes through this one, with its defaults.
  setGlobalDispatcher(new Agent())
}

const shortenSockets = (): void => {
  const { setTimeout: set } = net.Socket.prototype
  net.Socket.prototype.setTimeout = function setTimeout(ms, callback) {
    return set.call(this, scaled(ms), callback)
  }
  const { createServer } = http
  http.createServer = (...args: unknown[]) => {
    const [options, listener] = typeof args[0] === 'function' ? [{}, args[0]] : args
    const server = createServer({ connectionsCheckingInterval: 1_000, ...(options as object) }, listener as never)
    server.requestTimeout = scaled(server.requestTimeout)
    server.headersTimeout = scaled(server.headersTimeout)
    return server
  }
}

const shortenSupervisors = (): void => {
  const { spawn } = childProcess
  childProcess.spawn = ((command: string, args: string[], options: { env?: NodeJS.ProcessEnv }) =>
    spawn(
      command,
      args,
      command === process.execPath ? { ...options, env: { ...options.env, ...SCALED } } : options,
    )) as typeof spawn
}

/** Environment of a process whose time is to be scaled. */
export const SCALED = { NODE_OPTIONS: `--import=${fileURLToPath(import.meta.url)}` }

if (process.env['NODE_OPTIONS']?.includes(SCALED.NODE_OPTIONS) === true) {
  shortenTimers()
  shortenSockets()
  shortenSupervisors()
  syncBuiltinESMExports()
}
