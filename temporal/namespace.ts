import { setTimeout as sleep } from 'node:timers/promises'
import { errorText } from '../domain/errors.ts'
import { temporalCallMs } from '../domain/limits.ts'
import type { Logger } from '../telemetry/log.ts'
import { agentIdAttribute, statusAttribute } from '../workflows/messages.ts'
import type { Temporal } from './client.ts'
import { ALREADY_EXISTS, grpcCode, NOT_FOUND, PERMISSION_DENIED } from './connection.ts'
import { ensureJanitor } from './schedule.ts'

/** Histories stay readable for this long after the end. */
const retentionDays = 7
const KEYWORD = 2

const unless = async (codes: number[], call: Promise<unknown>): Promise<void> => {
  try {
    await call
  } catch (error) {
    if (!codes.includes(grpcCode(error) ?? -1)) throw error
  }
}

const registerNamespace = async ({ connection, namespace }: Temporal): Promise<void> => {
  const { workflowService } = connection
  try {
    await workflowService.describeNamespace({ namespace })
  } catch (error) {
    if (grpcCode(error) !== NOT_FOUND) throw error
    const workflowExecutionRetentionPeriod = { seconds: (retentionDays * 86_400) as never }
    await unless([ALREADY_EXISTS], workflowService.registerNamespace({ namespace, workflowExecutionRetentionPeriod }))
  }
}

const addSearchAttributes = async ({ connection, namespace }: Temporal): Promise<void> => {
  const { operatorService } = connection
  const known = await operatorService.listSearchAttributes({ namespace })
  const missing = [agentIdAttribute, statusAttribute].filter(({ name }) => known.customAttributes?.[name] === undefined)
  if (missing.length === 0) return
  const searchAttributes = Object.fromEntries(missing.map(({ name }) => [name, KEYWORD]))
  await unless([ALREADY_EXISTS], operatorService.addSearchAttributes({ namespace, searchAttributes }))
}

const ensureOnce = async (temporal: Temporal, log: Logger): Promise<void> => {
  const { connection } = temporal
  const within = <T>(call: () => Promise<T>): Promise<T> => connection.withDeadline(Date.now() + temporalCallMs, call)
  await within(() => registerNamespace(temporal))
  try {
    await within(() => addSearchAttributes(temporal))
  } catch (error) {
    // Hosted Temporal gives these rights to nobody but its own console.
    if (grpcCode(error) !== PERMISSION_DENIED) throw error
    log.warn({ err: error }, 'search attributes cannot be added; add LapAgentId and LapStatus (Keyword) by hand')
  }
  await within(() => ensureJanitor(temporal))
}

/**
 * Makes the namespace, its search attributes and the janitor's schedule, waiting for Temporal as long as it takes.
 * @throws only when the signal ends it
 */
export const ensureNamespace = async (temporal: Temporal, log: Logger, signal: AbortSignal): Promise<void> => {
  for (let waitMs = 250; ; waitMs = Math.min(waitMs * 2, 5_000)) {
    try {
      await ensureOnce(temporal, log)
      return
    } catch (error) {
      signal.throwIfAborted()
      log.warn({ reason: errorText(error), retry_in_ms: waitMs }, 'Temporal is not ready, trying again')
      await sleep(waitMs, undefined, { signal })
    }
  }
}
