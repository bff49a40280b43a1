import { randomUUID } from 'node:crypto'
import type * as acp from '@agentclientprotocol/sdk/unstable'
import type { MessagePart, TurnReply } from '../../domain/turn.ts'
import type { HarnessEvent } from '../harness.ts'
import { partOf, wordsOf } from './content.ts'
import { type ToolCall, newCall, stateOf, updateCall } from './tools.ts'

/**
 * What was said in a conversation, and the events in opencode's form by which it is told: the messages and parts are made here, because an agent tells
 * its pieces without them. One turn is one message of the user and one of the assistant.
 */
export type Thread = {
  /** The user's message, and the beginning of the answer. */
  begin(parts: MessagePart[]): void
  /** A piece of the answer. Outside of a turn nobody asked for it. @returns whether it is one */
  hear(update: acp.SessionUpdate): boolean
  /** Ends what is left open. */
  end(error: string | null): void
  /** The agent is going to tell all of it, perhaps once more. */
  beginReplay(): void
  /** Takes up what the agent tells of an earlier turn, without events. */
  replay(update: acp.SessionUpdate): void
  call(id: string): ToolCall | undefined
  /** Whether it is not of this process: whatever there is of it is what the agent tells. */
  isReplayed(): boolean
  /** Oldest first. */
  messages(): TurnReply[]
}

/** Updates that are a piece of an answer. */
const SAID = new Set(['agent_message_chunk', 'agent_thought_chunk', 'tool_call', 'tool_call_update'])

/** Characters kept in memory; what is older is in the platform's log. */
const threadCharsMax = 16 * 1024 * 1024

type Part = MessagePart & { id: string }
type Message = { info: Record<string, unknown> & { id: string; role: string }; parts: Part[] }
type Tool = { call: ToolCall; part: Part; message: Message }

const newId = (kind: string): string => `${kind}_${randomUUID().replaceAll('-', '')}`
const sizeOf = ({ parts }: Message): number => JSON.stringify(parts).length

type Told = { sessionID: string; model: string; onEvent: (event: HarnessEvent) => void }

/** Messages and their parts, each change told. */
const createMessages = ({ sessionID, model, onEvent }: Told) => {
  let messages: Message[] = []
  const tell = (type: string, properties: Record<string, unknown>): void =>
    onEvent({ type, properties: { sessionID, ...properties } })
  const tellMessage = ({ info }: Message): void => tell('message.updated', { info: { ...info } })
  const tellPart = (part: Part): void => tell('message.part.updated', { part: { ...part } })
  return {
    all: () => messages,
    tell,
    tellMessage,
    tellPart,
    add(role: 'user' | 'assistant', parts: MessagePart[], more: object = {}): Message {
      const info = { id: newId('msg'), sessionID, role, modelID: model, providerID: 'litellm', ...more }
      const message: Message = { info: { ...info, time: { created: Date.now() } }, parts: [] }
      messages.push(message)
      tellMessage(message)
      for (const part of parts) tellPart(this.addPart(message, part))
      return message
    },
    addPart({ info, parts }: Message, part: MessagePart): Part {
      const whole = { ...part, id: newId('prt'), sessionID, messageID: info.id }
      parts.push(whole)
      return whole
    },
    clear: () => void (messages = []),
    /** Forgets the oldest turns of a thread that has become too long. */
    trim(): void {
      let chars = 0
      const kept = messages.findLastIndex((message) => (chars += sizeOf(message)) > threadCharsMax)
      if (kept >= 0) messages = messages.slice(kept + 1)
    },
  }
}

type Messages = ReturnType<typeof createMessages>

/** The answer of one turn, as it comes. */
const createAnswer = (messages: Messages, message: Message, tools: Map<string, Tool>) => {
  /** Text that still grows. */
  let open: Part | null = null
  const close = (): void => {
    if (open === null) return
    open['time'] = { ...(open['time'] as object), end: Date.now() }
    messages.tellPart(open)
    open = null
  }
  const say = (type: 'text' | 'reasoning', text: string): void => {
    if (text === '') return
    if (open?.type !== type) {
      close()
      open = messages.addPart(message, { type, text: '', time: { start: Date.now() } })
      messages.tellPart(open)
    }
    open['text'] = `${String(open['text'])}${text}`
    messages.tell('message.part.delta', { messageID: message.info.id, partID: open.id, field: 'text', delta: text })
  }
  const update = (change: acp.ToolCallUpdate): void => {
    close()
    const call = tools.get(change.toolCallId)?.call ?? newCall()
    const before = JSON.stringify([call.name, stateOf(call)])
    updateCall(call, change)
    const { part } = tools.get(change.toolCallId) ?? {
      part: messages.addPart(message, { type: 'tool', callID: change.toolCallId }),
    }
    const isNew = !tools.has(change.toolCallId)
    tools.set(change.toolCallId, { call, part, message })
    Object.assign(part, { tool: call.name, state: stateOf(call) })
    if (isNew || before !== JSON.stringify([call.name, stateOf(call)])) messages.tellPart(part)
  }
  return {
    message,
    hear(change: acp.SessionUpdate): void {
      switch (change.sessionUpdate) {
        case 'agent_message_chunk':
          return say('text', wordsOf(change.content))
        case 'agent_thought_chunk':
          return say('reasoning', wordsOf(change.content))
        case 'tool_call':
        case 'tool_call_update':
          return update(change)
        default:
      }
    },
    end(error: string | null): void {
      close()
      for (const { call, part, message: own } of tools.values()) {
        if (own !== message || call.end !== null) continue
        call.end = Date.now()
        const { input, start, end } = call
        const cause = error ?? 'The turn ended while this ran.'
        part['state'] = { status: 'error', input, error: cause, time: { start, end } }
        messages.tellPart(part)
      }
      message.info['time'] = { ...(message.info['time'] as object), completed: Date.now() }
      if (error !== null) message.info['error'] = { name: 'HarnessError', data: { message: error } }
      messages.tellMessage(message)
    },
  }
}

export const createThread = (told: Told): Thread => {
  const messages = createMessages(told)
  const silent = createMessages({ ...told, onEvent: () => undefined })
  const tools = new Map<string, Tool>()
  let answer: ReturnType<typeof createAnswer> | null = null
  let replayed: ReturnType<typeof createAnswer> | null = null

  return {
    begin(parts) {
      const asked = messages.add('user', parts)
      answer = createAnswer(messages, messages.add('assistant', [], { parentID: asked.info.id }), tools)
    },
    hear(update) {
      answer?.hear(update)
      return SAID.has(update.sessionUpdate)
    },
    end(error) {
      if (answer === null) return
      answer.end(error)
      answer = null
      if (error !== null) messages.tell('session.error', { error: { name: 'HarnessError', data: { message: error } } })
      messages.tell('session.idle', {})
      tools.clear()
      messages.trim()
    },
    beginReplay() {
      if (messages.all().length > 0) return
      silent.clear()
      replayed = null
    },
    replay(update) {
      if (update.sessionUpdate === 'user_message_chunk') {
        const last = silent.all().at(-1)
        if (replayed === null && last?.info.role === 'user') silent.addPart(last, partOf(update.content))
        else silent.add('user', [partOf(update.content)])
        replayed = null
        return
      }
      if (!SAID.has(update.sessionUpdate)) return
      replayed ??= createAnswer(silent, silent.add('assistant', []), new Map())
      replayed.hear(update)
    },
    call: (id) => tools.get(id)?.call,
    isReplayed: () => messages.all().length === 0,
    messages: () => structuredClone([...silent.all(), ...messages.all()]),
  }
}
