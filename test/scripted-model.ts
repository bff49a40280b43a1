import { once } from 'node:events'
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/**
 * A model that does what the user's text says, one line a step; after each tool result comes the next step.
 *
 *   run <shell command>     calls the shell tool
 *   wait <ms>               says nothing for a while, then goes on with the next line
 *   stream <n> <gap ms>     says n words
 *   say <text>              says it
 *   fail <status>           answers with that status
 */
export type ScriptedModel = AsyncDisposable & {
  url: string
  key: string
  /** Bodies of the chat requests so far, with their arrival by `performance.now()`; `closed` when the answer has ended, or was cut off. */
  requests: (ChatRequest & { at: number; authorization: string; closed: Promise<unknown> })[]
  /** Ends all connections and listens no more. */
  close(): Promise<void>
}

type Message = { role: string; content?: string | { type: string; text?: string }[] | null }
type ChatRequest = {
  model: string
  stream?: boolean
  messages: Message[]
  tools?: { function: { name: string } }[]
}
type Step = { verb: string; rest: string }

const textOf = ({ content }: Message): string =>
  typeof content === 'string' ? content : (content ?? []).map((part) => part.text ?? '').join('\n')

/** The step that is due: as many have been done as there are tool results behind the last user message. */
const dueStep = ({ messages }: ChatRequest): { steps: Step[]; done: number } => {
  const last = messages.findLastIndex((message) => message.role === 'user')
  const lines = last < 0 ? [] : textOf(messages[last]!).split('\n')
  const steps = lines.flatMap((line) => {
    const [, verb, rest] = /^(run|wait|stream|say|fail)\s*(.*)$/.exec(line.trim()) ?? []
    return verb === undefined ? [] : [{ verb, rest: rest ?? '' }]
  })
  const done = messages.slice(last).filter((message) => message.role === 'tool').length
  return { steps, done }
}

const usage = { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 }

const answer = async (request: ChatRequest, response: ServerResponse): Promise<void> => {
  const { steps, done } = dueStep(request)
  const chunk = (delta: object, finish: string | null = null, more: object = {}): void => {
    const choices = [{ index: 0, delta, finish_reason: finish }]
    const body = { id: 'scripted', object: 'chat.completion.chunk', created: 0, model: request.model, choices, ...more }
    response.write(`data: ${JSON.stringify(body)}\n\n`)
  }
  let tools = 0
  const head = (): void => {
    if (!response.headersSent) response.writeHead(200, { 'content-type': 'text/event-stream' })
  }
  const end = (finish: string): void => {
    chunk({}, finish)
    response.write(
      `data: ${JSON.stringify({ id: 'scripted', object: 'chat.completion.chunk', choices: [], usage })}\n\n`,
    )
    response.end('data: [DONE]\n\n')
  }
  for (const { verb, rest } of steps) {
    if (verb === 'run') {
      if (tools++ < done) continue
      head()
      const name = request.tools?.find((tool) => /bash|shell/.test(tool.function.name))?.function.name ?? 'bash'
      const call = { name, arguments: JSON.stringify({ command: rest, description: 'As told' }) }
      chunk({ role: 'assistant', tool_calls: [{ index: 0, id: `call_${tools}`, type: 'function', function: call }] })
      return end('tool_calls')
    }
    // What was said before the last tool call has been said.
    if (tools < done) continue
    if (verb === 'fail') return void response.writeHead(Number(rest)).end('{"error":{"message":"as told"}}')
    head()
    if (verb === 'wait') await sleep(Number(rest))
    if (verb === 'say') chunk({ role: 'assistant', content: rest })
    if (verb === 'stream') {
      const [count = 1, gapMs = 0] = rest.split(' ').map(Number)
      for (let i = 0; i < count && !response.destroyed; i++) {
        chunk({ role: 'assistant', content: `word${i} ` })
        if (gapMs > 0) await sleep(gapMs)
      }
    }
  }
  head()
  if (steps.length === 0) chunk({ role: 'assistant', content: 'Nothing to do.' })
  end('stop')
}

const readJson = async (request: IncomingMessage): Promise<ChatRequest> => {
  let text = ''
  for await (const part of request.setEncoding('utf8') as AsyncIterable<string>) text += part
  return JSON.parse(text) as ChatRequest
}

/** @param host where it listens; a pod does not see the loopback of its node */
export const startScriptedModel = async (key = 'real-gateway-key', host = '127.0.0.1'): Promise<ScriptedModel> => {
  const requests: ScriptedModel['requests'] = []
  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const at = performance.now()
    const authorization = request.headers.authorization ?? ''
    if (authorization !== `Bearer ${key}`) return void response.writeHead(401).end('{"error":{"message":"wrong key"}}')
    const body = await readJson(request)
    requests.push({ ...body, at, authorization, closed: once(response, 'close') })
    await answer(body, response)
  }
  const server = createServer((request, response) => void handle(request, response).catch(() => response.destroy()))
  server.listen(0, host)
  await once(server, 'listening')
  const close = async (): Promise<void> => {
    if (!server.listening) return
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  }
  return {
    url: `http://${host}:${(server.address() as AddressInfo).port}`,
    key,
    requests,
    close,
    [Symbol.asyncDispose]: close,
  }
}
