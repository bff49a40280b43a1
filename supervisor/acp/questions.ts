import { randomUUID } from 'node:crypto'
import type * as acp from '@agentclientprotocol/sdk/unstable'
import type { PermissionDecision, PermissionRequest } from '../../domain/permission.ts'
import { type ToolCall, newCall, permissionKindOf, updateCall } from './tools.ts'

type Response = acp.RequestPermissionResponse

/** The questions of an agent that wait for an answer. */
export type Questions = {
  /**
   * @param call what has been told of the tool call so far
   * @returns `request`: null for the same once more as what was answered with `allow_always`, which some agents ask all the same
   */
  ask(
    params: acp.RequestPermissionRequest,
    call: ToolCall | undefined,
  ): { request: PermissionRequest | null; answered: Promise<Response> }
  /** @returns the session that had asked; undefined when the question is over */
  reply(id: string, decision: PermissionDecision): string | undefined
  /** Those of a session are over: its turn was cancelled. */
  cancel(session: string): void
  /** All are over: nobody is there to hear the answers. */
  forget(): void
}

/** In this order. An agent that offers nothing of the kind is told that its turn is cancelled, which it must understand. */
const WANTED: Record<PermissionDecision, acp.PermissionOptionKind[]> = {
  allow: ['allow_once', 'allow_always'],
  allow_always: ['allow_always', 'allow_once'],
  deny: ['reject_once', 'reject_always'],
}

const answerOf = (options: acp.PermissionOption[], decision: PermissionDecision): Response => {
  for (const kind of WANTED[decision]) {
    const option = options.find((each) => each.kind === kind)
    if (option !== undefined) return { outcome: { outcome: 'selected', optionId: option.optionId } }
  }
  return { outcome: { outcome: 'cancelled' } }
}

/** `same`: of what counts as the same. */
type Question = { session: string; same: string; options: acp.PermissionOption[]; answer: (r: Response) => void }

export const createQuestions = (): Questions => {
  const open = new Map<string, Question>()
  const always = new Set<string>()
  return {
    ask({ sessionId, toolCall, options }, known) {
      const id = `per_${randomUUID().replaceAll('-', '')}`
      const call = { ...(known ?? newCall()) }
      updateCall(call, toolCall)
      const same = JSON.stringify([sessionId, call.name, call.title])
      if (always.has(same)) return { request: null, answered: Promise.resolve(answerOf(options, 'allow')) }
      const { promise: answered, resolve: answer } = Promise.withResolvers<Response>()
      open.set(id, { session: sessionId, same, options, answer })
      const tool = { name: call.name, call_id: toolCall.toolCallId, input: call.input }
      return { answered, request: { id, kind: permissionKindOf(call.kind), title: call.title, tool } }
    },
    reply(id, decision) {
      const question = open.get(id)
      open.delete(id)
      if (question !== undefined && decision === 'allow_always') always.add(question.same)
      question?.answer(answerOf(question.options, decision))
      return question?.session
    },
    cancel(session) {
      for (const [id, question] of open) {
        if (question.session !== session) continue
        open.delete(id)
        question.answer({ outcome: { outcome: 'cancelled' } })
      }
    },
    forget: () => open.clear(),
  }
}
