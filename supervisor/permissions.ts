import { AppError } from '../domain/errors.ts'
import {
  type PermissionDecision,
  type PermissionPolicy,
  type PermissionRequest,
  ruleFor,
} from '../domain/permission.ts'
import { refused } from './refused.ts'
import type { Harness } from './harness.ts'
import type { Journal } from './journal.ts'

/** The questions of a bound session's harness: the policy answers them, or the journal asks whoever reads it. */
export type Permissions = {
  ask: (request: PermissionRequest) => void
  /** @throws AppError `not_found`: nobody asks that, or no longer; `conflict`: it was answered otherwise */
  reply: (id: string, decision: PermissionDecision) => Promise<void>
  /** The turn is over: its questions are, too. */
  endTurn: () => void
}

export type PermissionsDeps = {
  journal: Pick<Journal, 'append'>
  harness: Pick<Harness, 'reply'>
  policy: PermissionPolicy
  running: () => string | null
  log: (line: string) => void
}

/** Answers that are remembered, so that a repeated one is harmless. */
const repliedMax = 1_000

export const createPermissions = (deps: PermissionsDeps): Permissions => {
  const open = new Map<string, string | null>()
  const replied = new Map<string, PermissionDecision>()

  const close = (id: string, decision: PermissionDecision, by: 'user' | 'turn_ended'): void => {
    const turn_id = open.get(id) ?? null
    open.delete(id)
    deps.journal.append({ type: 'permission_replied', turn_id, permission_id: id, decision, by })
  }

  return {
    ask(request) {
      const rule = ruleFor(deps.policy, request.kind)
      if (rule === 'ask') {
        const turn_id = deps.running()
        open.set(request.id, turn_id)
        deps.journal.append({ type: 'permission_asked', turn_id, permission: request })
        return
      }
      // Its death, which is the only way to fail, is told elsewhere.
      deps.harness.reply(request.id, rule).catch((error: unknown) => deps.log(`permission: ${String(error)}`))
    },
    async reply(id, decision) {
      const before = replied.get(id)
      if (before === decision) return
      if (before !== undefined) throw refused('already_replied', `the question ${id} was answered with "${before}"`)
      if (!open.has(id)) throw new AppError('not_found', `there is no open question ${id}`)
      replied.set(id, decision)
      if (replied.size > repliedMax) replied.delete(replied.keys().next().value!)
      close(id, decision, 'user')
      await deps.harness.reply(id, decision)
    },
    endTurn() {
      for (const id of open.keys()) close(id, 'deny', 'turn_ended')
    },
  }
}
