import { setTimeout as sleep } from 'node:timers/promises'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import { expirePermissions, permissionDelivered, turnWishes } from '../db/permissions.ts'
import type { TurnWishes } from '../db/permissions.ts'
import { errorText, isAppError } from '../domain/errors.ts'
import { turnWishesMs } from '../domain/limits.ts'
import * as events from '../telemetry/events/turns.ts'
import type { ActivityDeps } from './deps.ts'

type Followed = { sessionId: string; turnId: string; sandbox: SandboxRow }

/** The sandbox says that nobody waits for it there, or that it was told otherwise before: either way it takes no answer. */
const takesNone = (error: unknown): boolean =>
  isAppError(error) && (error.code === 'not_found' || error.code === 'conflict')

const deliver = async (deps: ActivityDeps, { sandbox }: Followed, answer: TurnWishes['answers'][number]) => {
  try {
    await deps.supervisor.replyPermission(sandbox, answer.request_id, answer.decision)
  } catch (error) {
    if (!takesNone(error)) throw error
    deps.log.info({ permission_id: answer.id, reason: errorText(error) }, 'the sandbox takes no answer')
  }
  await permissionDelivered(deps.sql, answer.id)
}

const expire = async (deps: ActivityDeps, { sessionId, turnId }: Followed): Promise<void> => {
  const expired = await expirePermissions(deps.sql, sessionId)
  for (let i = 0; i < expired; i++)
    events.permissionDecided(deps, { session_id: sessionId, turn_id: turnId, outcome: 'expired' })
}

/** @returns whether the sandbox has been told to stop the turn */
const fulfil = async (deps: ActivityDeps, followed: Followed, told: boolean): Promise<boolean> => {
  const before = await turnWishes(deps.sql, followed.turnId)
  if (before?.due === true) await expire(deps, followed)
  const wishes = before?.due === true ? await turnWishes(deps.sql, followed.turnId) : before
  for (const answer of wishes?.answers ?? []) await deliver(deps, followed, answer)
  if (told || wishes?.interrupt !== true) return told
  await deps.supervisor.interrupt(followed.sandbox, followed.turnId)
  return true
}

/**
 * While a turn runs: brings answers and interrupts to its sandbox that did not get there early, and denies what nobody has answered in time. What fails is tried
 * again; whether the sandbox is lost, others find out.
 */
export const followWishes = async (deps: ActivityDeps, followed: Followed, over: AbortSignal): Promise<void> => {
  let told = false
  for (;;) {
    await sleep(turnWishesMs, undefined, { signal: over }).catch(() => {})
    if (over.aborted) return
    try {
      told = await fulfil(deps, followed, told)
    } catch (error) {
      deps.log.debug({ turn_id: followed.turnId, reason: errorText(error) }, 'the sandbox was not told what is wanted')
    }
  }
}
