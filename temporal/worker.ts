import { setTimeout as sleep } from 'node:timers/promises'
import { NativeConnection, Runtime, Worker } from '@temporalio/worker'
import type { LogLevel, WorkerOptions } from '@temporalio/worker'
import type { Activities } from '../activities/index.ts'
import type { TemporalConfig } from '../config/temporal.ts'
import { errorText } from '../domain/errors.ts'
import { cachedWorkflowsMax, liveSessionsMax, workerShutdownMs } from '../domain/limits.ts'
import { TASK_QUEUE } from '../domain/names.ts'
import type { Logger } from '../telemetry/log.ts'
import { addressOf } from './connection.ts'

const PINO_LEVELS = { TRACE: 'trace', DEBUG: 'debug', INFO: 'info', WARN: 'warn', ERROR: 'error' } as const

/** Temporal's own lines come out of the process' log. Once per process, before any worker. */
export const installRuntime = (log: Logger): void => {
  const write = (level: LogLevel, message: string, meta: Record<string, unknown> = {}): void => {
    const { error, ...fields } = meta
    log[PINO_LEVELS[level]]({ ...fields, ...(error === undefined ? {} : { err: error }) }, message)
  }
  Runtime.install({
    // The process decides when it ends.
    shutdownSignals: [],
    logger: {
      log: write,
      trace: (message, meta) => write('TRACE', message, meta),
      debug: (message, meta) => write('DEBUG', message, meta),
      info: (message, meta) => write('INFO', message, meta),
      warn: (message, meta) => write('WARN', message, meta),
      error: (message, meta) => write('ERROR', message, meta),
    },
    telemetryOptions: { logging: { forward: {}, filter: { core: 'WARN', other: 'WARN' } } },
  })
}

type WorkflowBundle = NonNullable<WorkerOptions['workflowBundle']>

export type WorkerSettings = {
  config: TemporalConfig
  activities: Activities
  log: Logger
  /** The bundled workflow code. */
  workflowBundle: WorkflowBundle
  taskQueue?: string
}

/** What a worker of this platform is made with. */
const workerOptions = (settings: Omit<WorkerSettings, 'log'>): WorkerOptions => ({
  namespace: settings.config.namespace,
  taskQueue: settings.taskQueue ?? TASK_QUEUE,
  activities: settings.activities,
  workflowBundle: settings.workflowBundle,
  maxCachedWorkflows: cachedWorkflowsMax,
  // A turn is one activity for as long as it runs: a slot for every session, and some for everything else.
  maxConcurrentActivityTaskExecutions: liveSessionsMax + 1_000,
  maxConcurrentLocalActivityExecutions: 100,
  workflowTaskPollerBehavior: { type: 'simple-maximum', maximum: 10 },
  activityTaskPollerBehavior: { type: 'simple-maximum', maximum: 10 },
  // After a crash, tasks for the dead worker's cache wait this long.
  stickyQueueScheduleToStartTimeout: '2s',
  // Also the longest wait until an activity hears that it is cancelled.
  maxHeartbeatThrottleInterval: '1s',
  defaultHeartbeatThrottleInterval: '1s',
  shutdownGraceTime: workerShutdownMs,
  shutdownForceTime: workerShutdownMs * 1.5,
})

const runOnce = async (settings: WorkerSettings, signal: AbortSignal, onReady: () => void): Promise<void> => {
  const connection = await NativeConnection.connect(addressOf(settings.config))
  try {
    const worker = await Worker.create({ ...workerOptions(settings), connection })
    const stop = (): void => {
      if (worker.getState() === 'RUNNING') worker.shutdown()
    }
    signal.addEventListener('abort', stop)
    try {
      const running = worker.run()
      onReady()
      if (signal.aborted) stop()
      await running
    } finally {
      signal.removeEventListener('abort', stop)
    }
  } finally {
    await connection.close().catch(() => {})
  }
}

/**
 * Runs a worker until the signal ends it, through any outage of Temporal: polls come again by themselves, and a worker that gave up is made anew.
 * @param onReady called each time a worker begins to poll
 */
export const runWorker = async (settings: WorkerSettings, signal: AbortSignal, onReady: () => void): Promise<void> => {
  for (let waitMs = 250; !signal.aborted; waitMs = Math.min(waitMs * 2, 5_000)) {
    const since = Date.now()
    try {
      await runOnce(settings, signal, onReady)
    } catch (error) {
      if (signal.aborted) return
      if (Date.now() - since > 60_000) waitMs = 250
      settings.log.warn(
        { reason: errorText(error), retry_in_ms: waitMs },
        'the Temporal worker stopped, making a new one',
      )
      await sleep(waitMs, undefined, { signal }).catch(() => {})
    }
  }
}
