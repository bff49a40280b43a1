import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Call, type Tool, namedCall, shellCall, writeCall } from './scripted-tools.ts'

/**
 * A model that does what the user's text says, one line a step; after each tool result comes the next step. It speaks OpenAI's chat completions, streamed and whole.
 *
 *   run <shell command>     calls the shell tool
 *   write <path> <text>     calls the tool that writes files, or else the shell tool; `\n` in the text is a line break
 *   call <tool> <json>      calls the tool of that name, or whose name ends so
 *   wait <ms>               says nothing for a while, then goes on with the next line
 *   stream <n> <gap ms>     says n words
 *   say <text>              says it
 *   think <text>            thinks it
 *   fail <status>           answers with that status
 *   hang                    begins an answer and says nothing more, until it is hung up on
 *   usage <in> <out> [<cached>]   counts this answer's tokens so; 10, 5 and none otherwise
 *
 * The script is the last message of the user in the turn with such a line in it; harnesses put remarks of their own in front of it and behind. A tool that the
 * request does not offer is not called: the model says so, as a harness asks for titles and summaries without offering tools.
 */
export type ScriptedModel = AsyncDisposable & {
  url: string
  key: string
  /** Bodies of the chat requests so far, with their arrival by `performance.now()`; `closed` when the answer has ended, or was cut off. */
  requests: (ChatRequest & { at: number; authorization: string; closed: Promise<unknown> })[]
  /** Ends all connections and listens no more. */
  close(): Promise<void>
}

type Message = { role: string; content?: string | { type: string; text?: string }[] | null; tool_calls?: object[] }
type ChatRequest = {
  model: string
  stream?: boolean
  messages: Message[]
  tools?: Tool[]
}
type Step = { verb: string; rest: string }

const STEP = /^(run|write|call|wait|stream|say|think|fail|hang|usage)(?:\s+(.*))?$/
const TOOL_VERBS = new Set(['run', 'write', 'call'])

const textsOf = ({ content }: Message): string[] =>
  typeof content === 'string' ? [content] : (content ?? []).map((part) => part.text ?? '')

/** What harnesses add: `<system-reminder>…</system-reminder>` and the like, each tag on the line's begin. */
const withoutRemarks = (text: string): string => text.replaceAll(/^\s*<([\w-]+)>[\s\S]*?<\/\1>/gm, '')

const stepsOf = (text: string): Step[] =>
  withoutRemarks(text)
    .split('\n')
    .flatMap((line) => {
      const [, verb, rest = ''] = STEP.exec(line.trimEnd()) ?? []
      return verb === undefined ? [] : [{ verb, rest }]
    })

/** Of its last part with steps: what failed unanswered is sent again by some, as a part before the next one. */
const stepsIn = (message: Message): Step[] =>
  textsOf(message)
    .map(stepsOf)
    .findLast((steps) => steps.length > 0) ?? []

/** Of the turn that is answered; an answer without a call has ended the one before. */
const turnOf = ({ messages }: ChatRequest): Message[] =>
  messages.slice(
    messages.findLastIndex(({ role, tool_calls = [] }) => role === 'assistant' && tool_calls.length === 0) + 1,
  )

/** The steps, and how many calls are done: as many as there are results behind the script. */
const dueStep = (request: ChatRequest): { steps: Step[]; done: number } => {
  const turn = turnOf(request)
  const script = turn.findLastIndex((message) => message.role === 'user' && stepsIn(message).length > 0)
  if (script < 0) return { steps: [], done: 0 }
  return {
    steps: stepsIn(turn[script]!),
    done: turn.slice(script).filter((message) => message.role === 'tool').length,
  }
}

const callOf = (tools: Tool[], { verb, rest }: Step): Call | null => {
  if (verb === 'run') return shellCall(tools, rest)
  const [, first = '', more = ''] = /^(\S+)\s*(.*)$/.exec(rest) ?? []
  return verb === 'write'
    ? writeCall(tools, first, more.replaceAll(String.raw`\n`, '\n'))
    : namedCall(tools, first, more)
}

const usageOf = ([input = 10, output = 5, cached = 0]: number[]): object => ({
  prompt_tokens: input,
  completion_tokens: output,
  total_tokens: input + output,
  ...(cached === 0 ? {} : { prompt_tokens_details: { cached_tokens: cached } }),
})

type Delta = { content?: string; reasoning_content?: string; tool_calls?: object[] }
/** An answer as it is said. */
type Answer = { begin(): void; say(delta: Delta): void; end(finish: 'stop' | 'tool_calls', usage: object): void }

const streamed = (model: string, response: ServerResponse): Answer => {
  const head = { id: 'scripted', object: 'chat.completion.chunk', created: 0, model }
  const send = (body: object): void => void response.write(`data: ${JSON.stringify({ ...head, ...body })}\n\n`)
  const begin = (): void => {
    if (response.headersSent) return
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.flushHeaders()
  }
  const chunk = (delta: object, finish_reason: string | null): void => {
    begin()
    send({ choices: [{ index: 0, delta, finish_reason }] })
  }
  return {
    begin,
    say: (delta) => chunk({ role: 'assistant', ...delta }, null),
    end(finish, usage) {
      chunk({}, finish)
      send({ choices: [], usage })
      response.end('data: [DONE]\n\n')
    },
  }
}

const whole = (model: string, response: ServerResponse): Answer => {
  const said: Delta[] = []
  const all = (key: 'content' | 'reasoning_content'): string => said.map((delta) => delta[key] ?? '').join('')
  return {
    begin: () => undefined,
    say: (delta) => void said.push(delta),
    end(finish_reason, usage) {
      const tool_calls = said.flatMap((delta) => delta.tool_calls ?? [])
      const message = {
        role: 'assistant',
        content: all('content') || null,
        ...(all('reasoning_content') === '' ? {} : { reasoning_content: all('reasoning_content') }),
        ...(tool_calls.length === 0 ? {} : { tool_calls }),
      }
      const head = { id: 'scripted', object: 'chat.completion', created: 0, model }
      response.writeHead(200, { 'content-type': 'application/json' })
      response.end(JSON.stringify({ ...head, choices: [{ index: 0, message, finish_reason }], usage }))
    },
  }
}

const fail = (response: ServerResponse, status: number): void => {
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(JSON.stringify({ error: { message: 'as told', type: 'scripted', code: String(status) } }))
}

/** Says what a step without a tool says. @returns whether the answer goes on */
const speak = async ({ verb, rest }: Step, out: Answer, response: ServerResponse): Promise<boolean> => {
  if (verb === 'fail') {
    fail(response, Number(rest))
    return false
  }
  out.begin()
  if (verb === 'wait') await sleep(Number(rest))
  if (verb === 'say') out.say({ content: rest })
  if (verb === 'think') out.say({ reasoning_content: rest })
  if (verb === 'hang') await once(response, 'close')
  if (verb === 'stream') {
    const [count = 1, gapMs = 0] = rest.split(' ').map(Number)
    for (let i = 0; i < count && !response.destroyed; i++) {
      out.say({ content: `word${i} ` })
      if (gapMs > 0) await sleep(gapMs)
    }
  }
  return !response.destroyed
}

const answer = async (request: ChatRequest, response: ServerResponse): Promise<void> => {
  const { steps, done } = dueStep(request)
  const out = (request.stream === true ? streamed : whole)(request.model, response)
  let usage = usageOf([])
  let tools = 0
  for (const step of steps) {
    const isTool = TOOL_VERBS.has(step.verb)
    if (isTool && tools++ < done) continue
    // What was said before the last tool call has been said.
    if (!isTool && tools < done) continue
    if (step.verb === 'usage') usage = usageOf(step.rest.split(' ').map(Number))
    else if (isTool) {
      const call = callOf(request.tools ?? [], step)
      if (call === null) {
        out.say({ content: `No tool for: ${step.verb} ${step.rest}` })
        break
      }
      const named = { name: call.name, arguments: JSON.stringify(call.arguments) }
      // A harness that loads a conversation drops what has an id for the second time.
      out.say({ tool_calls: [{ index: 0, id: `call_${randomUUID()}`, type: 'function', function: named }] })
      return out.end('tool_calls', usage)
    } else if (!(await speak(step, out, response))) return
  }
  if (steps.length === 0) out.say({ content: 'Nothing to do.' })
  out.end('stop', usage)
}

const readJson = async (request: IncomingMessage): Promise<ChatRequest> => {
  let text = ''
  for await (const part of request.setEncoding('utf8') as AsyncIterable<string>) text += part
  return JSON.parse(text) as ChatRequest
}

/**
 * @param host where it listens; a pod does not see the loopback of its node
 * @param port 0: any free one
 */
export const startScriptedModel = async (
  key = 'real-gateway-key',
  host = '127.0.0.1',
  port = 0,
): Promise<ScriptedModel> => {
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
  server.listen(port, host)
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
