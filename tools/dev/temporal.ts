import { type Socket, connect } from 'node:net'
import { temporalCli } from '../temporal.mjs'
import { freePort, isFree } from './ports.ts'
import type { ProcessRecord } from './process.ts'
import { startServer } from './server.ts'

const STOP_TIMEOUT_MS = 15_000

/**
 * The development server has one shard whose default of 20 polls a second caps everything at 20 workflow tasks a second; one task-queue
 * partition shortens the tail.
 */
const DYNAMIC_CONFIG = {
  'history.transferProcessorMaxPollRPS': '2000',
  'matching.numTaskqueueReadPartitions': '1',
  'matching.numTaskqueueWritePartitions': '1',
}

export type TemporalOptions = {
  /** File that keeps the workflows; without it they are in memory. */
  dbFile?: string
  port?: number
  /** null: without UI. */
  uiPort?: number | null
  namespaces?: string[]
  /** Dynamic configuration of the server, beside and over ours. */
  settings?: Record<string, string>
  onOutput?: (text: string) => void
  /** Told as soon as the process exists. */
  onSpawn?: (record: ProcessRecord) => void
}

export type RunningTemporal = {
  address: string
  port: number
  uiUrl: string | null
  uiPort: number | null
  record: ProcessRecord
  exited: Promise<void>
  stop(): Promise<void>
}

const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket: Socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })

const portFor = async (wanted: number | undefined): Promise<number> =>
  wanted !== undefined && (await isFree(wanted)) ? wanted : freePort()

/** Starts a Temporal development server on the loopback and resolves when it accepts connections. */
export const startTemporal = async (options: TemporalOptions = {}): Promise<RunningTemporal> => {
  const cli = await temporalCli()
  const port = await portFor(options.port)
  const uiPort = options.uiPort === null ? null : await portFor(options.uiPort)
  const args = ['server', 'start-dev', '--ip', '127.0.0.1', '--port', String(port), '--log-level', 'error']
  args.push(...(uiPort === null ? ['--headless'] : ['--ui-port', String(uiPort)]))
  for (const namespace of options.namespaces ?? []) args.push('--namespace', namespace)
  if (options.dbFile !== undefined)
    args.push(
      '--db-filename',
      options.dbFile,
      '--sqlite-pragma',
      'journal_mode=wal',
      '--sqlite-pragma',
      'synchronous=off',
    )
  for (const [key, value] of Object.entries({ ...DYNAMIC_CONFIG, ...options.settings }))
    args.push('--dynamic-config-value', `${key}=${value}`)
  const server = await startServer(cli, args, {
    name: 'The Temporal server',
    isReady: () => accepts(port),
    stopSignal: 'SIGTERM',
    giveUpSignal: 'SIGKILL',
    stopTimeoutMs: STOP_TIMEOUT_MS,
    onOutput: options.onOutput,
    onSpawn: options.onSpawn,
  })
  return {
    address: `127.0.0.1:${port}`,
    port,
    uiUrl: uiPort === null ? null : `http://localhost:${uiPort}`,
    uiPort,
    ...server,
  }
}
