import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setImmediate as turnOver } from 'node:timers/promises'
import type * as acp from '@agentclientprotocol/sdk/unstable'
import type { MessagePart } from '../../domain/turn.ts'
import { type Harness, type HarnessContext, type HarnessExit, HarnessGone } from '../harness.ts'
import type { AcpAgent } from './agent.ts'
import { type Connection, connect } from './connection.ts'
import { contentOf } from './content.ts'
import { type Conversation, type Conversations, createConversations } from './conversations.ts'
import { createQuestions, type Questions } from './questions.ts'
import { errorOf, refusalText } from './turn.ts'

const prepareHome = ({ files = {} }: AcpAgent, home: string): void => {
  for (const [name, content] of Object.entries(files)) {
    const file = path.join(home, name)
    mkdirSync(path.dirname(file), { recursive: true })
    writeFileSync(file, content, { mode: 0o600 })
  }
}

type Deps = { agent: AcpAgent; name: string; context: HarnessContext }

/** One request is one turn: it is answered when the turn has ended, however long that takes. */
const runTurn = async (
  connection: Connection,
  own: Conversation,
  parts: MessagePart[],
): Promise<{ error: string | null }> => {
  const turn = (own.turn = { cancelled: false, denied: false, answered: false })
  const told = [...own.preamble]
  own.thread.begin(parts)
  const over = (error: string | null): { error: string | null } => {
    own.turn = null
    own.thread.end(error)
    return { error }
  }
  try {
    const prompt = [
      ...told.map((text) => ({ type: 'text' as const, text })),
      ...contentOf(parts, connection.capabilities.promptCapabilities),
    ]
    own.used = true
    const request: acp.PromptRequest = { sessionId: own.session!, prompt }
    const response = await connection.call((agent) => agent.request('session/prompt', request))
    // Updates that came before the response may still be on their way through the library.
    await turnOver()
    // A cancelled one may never have come to the model.
    if (turn.answered || response.stopReason !== 'cancelled') own.preamble.splice(0, told.length)
    return over(errorOf(response, turn.cancelled || turn.denied))
  } catch (error) {
    if (error instanceof HarnessGone) {
      over('The harness ended while this ran.')
      throw error
    }
    if (turn.answered) own.preamble.splice(0, told.length)
    return over(refusalText(error))
  }
}

/** @throws HarnessGone; Error for what the agent refused, in its words */
const asRefusal = (error: unknown): never => {
  throw error instanceof HarnessGone ? error : new Error(refusalText(error), { cause: error })
}

/** What an agent calls for, during its turns. */
const createCalls = (context: HarnessContext, conversations: Conversations, questions: Questions) => ({
  onUpdate({ sessionId, update }: acp.SessionNotification): void {
    if (update.sessionUpdate === 'notice')
      context.log(`${update.severity}: ${update.title} ${update.description ?? ''}`)
    const own = conversations.ofSession(sessionId)
    if (own === undefined) return
    if (!own.loading) {
      const isAnswer = own.thread.hear(update)
      if (isAnswer && own.turn !== null) own.turn.answered = true
      return
    }
    // Of a conversation of this process everything is known already.
    if (own.thread.isReplayed()) own.thread.replay(update)
  },
  onPermission(params: acp.RequestPermissionRequest): Promise<acp.RequestPermissionResponse> {
    const own = conversations.ofSession(params.sessionId)
    // Some say only here what the call is about.
    const { status: _, ...known } = params.toolCall
    own?.thread.hear({ sessionUpdate: 'tool_call_update', ...known })
    const { request, answered } = questions.ask(params, own?.thread.call(params.toolCall.toolCallId))
    if (request !== null) context.onPermission(own?.id ?? '', request)
    return answered
  },
})

/** Any agent that speaks ACP: https://agentclientprotocol.com */
export const createAcpHarness = (deps: Deps): Harness => {
  const { agent, name, context } = deps
  let running: Connection | null = null
  /** The latest, also while it starts. */
  let stopLatest = (): Promise<void> => Promise.resolve()
  let stopping = false
  const current = (): Connection => {
    if (running === null) throw new HarnessGone(`${name} does not run`)
    return running
  }
  const questions = createQuestions()
  const conversations = createConversations({ agent, context, connection: current })
  const calls = createCalls(context, conversations, questions)

  const onExit = (exit: HarnessExit): void => {
    questions.forget()
    if (running === null) return
    running = null
    if (!stopping) context.onExit(exit)
  }

  return {
    async start() {
      stopping = false
      prepareHome(agent, context.home)
      const env = { ...context.env, HOME: context.home, ...agent.env }
      const onLine = (line: string): void => context.log(`${name}: ${line}`)
      const cwd = context.home
      const onProgram = (stop: () => Promise<void>): void => void (stopLatest = stop)
      running = await connect({ agent, name, cwd, env, calls, onLine, onExit, onProgram })
      await conversations.restore()
      current()
    },
    pid: () => running?.pid ?? null,
    open: () => conversations.open(),
    async bind(conversation, settings) {
      conversations.bind(conversation, settings)
    },
    async ready(conversation) {
      await conversations.get(conversation).ready().catch(asRefusal)
    },
    async tell(conversation, text) {
      conversations.get(conversation).preamble.push(text)
    },
    async prompt(conversation, parts) {
      return runTurn(current(), conversations.get(conversation), parts)
    },
    async cancel(conversation) {
      const { session, turn } = conversations.get(conversation)
      if (session === null || turn === null) return
      turn.cancelled = true
      questions.cancel(session)
      await current().call((agent) => agent.notify('session/cancel', { sessionId: session }))
    },
    async reply(id, decision) {
      const session = questions.reply(id, decision)
      const turn = session === undefined ? null : (conversations.ofSession(session)?.turn ?? null)
      if (decision === 'deny' && turn !== null) turn.denied = true
    },
    async messages(conversation) {
      return conversations.get(conversation).thread.messages()
    },
    save: (conversation, folder) => conversations.save(conversation, folder),
    adopt: (conversation, folder) => conversations.adopt(conversation, folder),
    close: (conversation) => conversations.close(conversation),
    async stop() {
      stopping = true
      await stopLatest()
    },
  }
}
