import { randomUUID } from 'node:crypto'
import { PERMISSION_KINDS } from '../../../domain/permission.ts'
import type { PermissionDecision, PermissionKind } from '../../../domain/permission.ts'
import { type HarnessContext, HarnessGone } from '../../../supervisor/harness.ts'

/**
 * A message may say, a line each, what the harness does before it asks the model:
 *
 *   ask <kind> <title>   asks whether it may, and waits for the answer, which it adds to its reply
 *   deaf                 hangs: it neither goes on nor hears that it should stop
 */
const ASK = new RegExp(`^ask (${PERMISSION_KINDS.join('|')}) (.+)$`)

type Question = { kind: PermissionKind; title: string }

export const questionsIn = (text: string): Question[] =>
  text.split('\n').flatMap((line) => {
    const [, kind, title] = ASK.exec(line) ?? []
    return kind === undefined || title === undefined ? [] : [{ kind: kind as PermissionKind, title }]
  })

export const isDeaf = (text: string): boolean => text.split('\n').includes('deaf')

/** What hangs until the harness is ended. */
export const createHang = () => {
  const begin = () => {
    const until = Promise.withResolvers<never>()
    until.promise.catch(() => {})
    return until
  }
  let until = begin()
  return {
    wait: (): Promise<never> => until.promise,
    end(): void {
      until.reject(new HarnessGone('it was ended'))
      until = begin()
    },
  }
}

/** The questions that wait for an answer. */
export const createQuestions = (context: HarnessContext) => {
  const open = new Map<string, (decision: PermissionDecision) => void>()
  /** Kinds that are allowed for good, by conversation. */
  const always = new Set<string>()
  return {
    /** @returns the answer; null when the signal comes first */
    ask(conversation: string, { kind, title }: Question, signal: AbortSignal): Promise<PermissionDecision | null> {
      if (always.has(`${conversation} ${kind}`)) return Promise.resolve('allow')
      const id = `per_${randomUUID()}`
      const tool = { name: 'light', call_id: null, input: { title } }
      const { promise, resolve } = Promise.withResolvers<PermissionDecision | null>()
      open.set(id, (decision) => {
        if (decision === 'allow_always') always.add(`${conversation} ${kind}`)
        resolve(decision)
      })
      signal.addEventListener('abort', () => {
        open.delete(id)
        resolve(null)
      })
      context.onPermission(conversation, { id, kind, title, tool })
      return promise
    },
    reply(id: string, decision: PermissionDecision): void {
      open.get(id)?.(decision)
      open.delete(id)
    },
  }
}
