import { randomUUID } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import http from 'node:http'
import path from 'node:path'
import type { MessagePart, TurnReply } from '../../../domain/turn.ts'
import type { Harness, HarnessContext, HarnessManifest } from '../../../supervisor/harness.ts'
import { createHang, createQuestions, isDeaf, questionsIn } from './questions.ts'

/**
 * A harness of almost no size, so that a benchmark of the platform measures the platform: a few MB, no process of its own, one streaming
 * chat completion a turn. It speaks on the bus as opencode does, and asks what a message tells it to (`questions.ts`).
 */

type Message = { role: 'system' | 'user' | 'assistant'; content: string }
type Chat = { history: Message[]; thread: TurnReply[]; abort: AbortController | null; system: string | null }

/** What a checkpoint holds of a conversation. */
const SAVED = 'chat.json'

const textOf = (parts: MessagePart[]): string =>
  parts.map((part) => (typeof part['text'] === 'string' ? part['text'] : '')).join('\n')

const id = (kind: string): string => `${kind}_${randomUUID().replaceAll('-', '')}`

/** Deltas of one streaming completion, as they come. */
async function* completion(gateway: HarnessContext['gateway'], messages: Message[], signal: AbortSignal) {
  const body = JSON.stringify({ model: gateway.model, stream: true, messages })
  const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
    const headers = { authorization: `Bearer ${gateway.key}`, 'content-type': 'application/json' }
    const request = http.request(`${gateway.url}/chat/completions`, { method: 'POST', headers, signal }, resolve)
    request.once('error', reject).end(body)
  })
  let rest = ''
  for await (const text of response.setEncoding('utf8') as AsyncIterable<string>) {
    rest += text
    const lines = rest.split('\n')
    rest = lines.pop() ?? ''
    if (response.statusCode !== 200) continue
    for (const line of lines) {
      if (!line.startsWith('data: {')) continue
      const chunk = JSON.parse(line.slice(6)) as { choices?: { delta?: { content?: string | null } }[] }
      const delta = chunk.choices?.[0]?.delta?.content
      if (typeof delta === 'string' && delta !== '') yield delta
    }
  }
  if (response.statusCode !== 200) throw new Error(`the model answered ${response.statusCode}: ${rest.slice(0, 300)}`)
}

/** The conversations, and how one says something. */
const createChats = (context: HarnessContext) => {
  const chats = new Map<string, Chat>()
  const chat = (conversation: string): Chat => {
    const found = chats.get(conversation)
    if (found === undefined) throw new Error(`no conversation ${conversation}`)
    return found
  }
  const say = (type: string, properties: Record<string, unknown>): void => context.onEvent({ type, properties })

  const addMessage = (sessionID: string, role: 'user' | 'assistant', parts: MessagePart[]): TurnReply => {
    const info = { id: id('msg'), sessionID, role, modelID: context.gateway.model, time: { created: Date.now() } }
    const whole = parts.map((part) => ({ id: id('prt'), messageID: info.id, sessionID, ...part }))
    const reply: TurnReply = { info, parts: whole }
    chat(sessionID).thread.push(reply)
    say('message.updated', { sessionID, info })
    for (const part of whole) say('message.part.updated', { sessionID, part })
    return reply
  }
  return { chats, chat, say, addMessage }
}

type Chats = ReturnType<typeof createChats>
type Asking = { questions: ReturnType<typeof createQuestions>; hang: ReturnType<typeof createHang> }

const createPrompt = (context: HarnessContext, { chat, say, addMessage }: Chats, { questions, hang }: Asking) => {
  const prompt: Harness['prompt'] = async (conversation, parts) => {
    const own = chat(conversation)
    const { system } = own
    const abort = (own.abort = new AbortController())
    addMessage(conversation, 'user', parts)
    own.history.push({ role: 'user', content: textOf(parts) })
    const { info, parts: said } = addMessage(conversation, 'assistant', [{ type: 'text', text: '' }])
    const part = said[0]!
    const messages: Message[] = [
      ...(system === null ? [] : [{ role: 'system' as const, content: system }]),
      ...own.history,
    ]
    const add = (delta: string): void => {
      part['text'] = `${String(part['text'])}${delta}`
      const ids = { sessionID: conversation, messageID: info['id'], partID: part['id'] }
      say('message.part.delta', { ...ids, field: 'text', delta })
    }
    if (isDeaf(textOf(parts))) await hang.wait()
    let error: string | null = null
    try {
      for (const question of questionsIn(textOf(parts))) {
        const decision = await questions.ask(conversation, question, abort.signal)
        if (decision !== null) add(`${decision}: ${question.title}\n`)
      }
      for await (const delta of completion(context.gateway, messages, abort.signal)) add(delta)
    } catch (cause) {
      error = Error.isError(cause) ? cause.message : String(cause)
      say('session.error', { sessionID: conversation, error: { name: 'LightError', data: { message: error } } })
    }
    own.abort = null
    own.history.push({ role: 'assistant', content: String(part['text']) })
    say('message.part.updated', { sessionID: conversation, part })
    info['time'] = { ...(info['time'] as object), completed: Date.now() }
    say('message.updated', { sessionID: conversation, info })
    say('session.idle', { sessionID: conversation })
    return { error }
  }
  return prompt
}

const create = (context: HarnessContext): Harness => {
  const own = createChats(context)
  const { chats, chat } = own
  const questions = createQuestions(context)
  const hang = createHang()
  return {
    start: () => Promise.resolve(),
    pid: () => null,
    open() {
      const conversation = id('ses')
      chats.set(conversation, { history: [], thread: [], abort: null, system: null })
      return Promise.resolve(conversation)
    },
    bind(conversation, { system }) {
      chat(conversation).system = system
      return Promise.resolve()
    },
    ready: () => Promise.resolve(),
    reply(id, decision) {
      questions.reply(id, decision)
      return Promise.resolve()
    },
    tell(conversation, text) {
      chat(conversation).history.push({ role: 'user', content: text })
      return Promise.resolve()
    },
    prompt: createPrompt(context, own, { questions, hang }),
    cancel(conversation) {
      chat(conversation).abort?.abort()
      return Promise.resolve()
    },
    messages: (conversation) => Promise.resolve(chat(conversation).thread),
    async save(conversation, folder) {
      const { history, thread } = chat(conversation)
      await writeFile(path.join(folder, SAVED), JSON.stringify({ history, thread }))
    },
    async adopt(conversation, folder) {
      const saved = JSON.parse(await readFile(path.join(folder, SAVED), 'utf8')) as Pick<Chat, 'history' | 'thread'>
      chats.set(conversation, { ...saved, abort: null, system: null })
      return true
    },
    close(conversation) {
      chats.delete(conversation)
      return Promise.resolve()
    },
    stop() {
      hang.end()
      return Promise.resolve()
    },
  }
}

const manifest: HarnessManifest = { id: 'light', name: 'Light (benchmark)', supportsTui: false, create }
export default manifest
