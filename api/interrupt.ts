import { setTimeout as sleep } from 'node:timers/promises'
import type { Interrupted } from '../db/queue.ts'
import { errorText } from '../domain/errors.ts'
import { earlyCallMs } from '../domain/limits.ts'
import type { ApiDeps } from './deps.ts'
import type { Context } from './http.ts'

/**
 * Does what a worker does a moment later, and waits no longer than a person likes to: what was asked for is written down, so an answer can be given without the sandbox.
 * @param what for the log, should it fail
 */
export const early = async (ctx: Context, what: object, call: () => Promise<void>): Promise<void> => {
  const called = call().catch((error: unknown) => {
    ctx.state.log.debug({ ...what, reason: errorText(error) }, 'the sandbox was not told early')
  })
  const over = new AbortController()
  await Promise.race([called, sleep(earlyCallMs, undefined, { signal: over.signal }).catch(() => {})])
  over.abort()
}

/** Tells the sandbox of a turn that is to stop. */
export const interruptSoon = async (ctx: Context, deps: ApiDeps, interrupted: Interrupted | null): Promise<void> => {
  const { sandbox, turnId } = interrupted ?? {}
  if (!sandbox || turnId === undefined) return
  await early(ctx, { turn_id: turnId }, () => deps.supervisor.interrupt(sandbox, turnId))
}
