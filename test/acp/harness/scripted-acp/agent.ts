import { randomUUID } from 'node:crypto'
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'

/**
 * An agent that speaks ACP, and does what the last text of a prompt says, one line a step:
 *
 *   say <text>              says it
 *   touch <file>            makes a file in the workspace, as a tool call
 *   print <chars> <times>   is a command that writes so many characters, so many times
 *   ask                     asks the model, and does not care for the answer
 *   fail <text>             refuses the prompt
 *   die                     ends
 *
 * Files in its home, which is its working directory, arrange the rest. `refuse`: the methods of requests that it refuses, each once. `hold`: while it is there,
 * requests of the method in it wait. `prompts.jsonl`: the texts of each prompt that it has got; `calls`: the methods of all requests.
 */
type Request = { id?: number; method: string; params: Record<string, unknown> }
type Block = { type: string; text?: string }

const workspaces = new Map<string, string>()

const send = (message: object): void => void process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`)
const textIn = (file: string): string => (existsSync(file) ? readFileSync(file, 'utf8') : '')
/** @returns whether the line was in the file */
const takeOff = (file: string, line: string): boolean => {
  const lines = textIn(file).split('\n')
  const at = lines.indexOf(line)
  if (at >= 0) writeFileSync(file, lines.toSpliced(at, 1).join('\n'))
  return at >= 0
}
const update = (sessionId: string, what: object): void =>
  send({ method: 'session/update', params: { sessionId, update: what } })

class Refusal extends Error {}

const runTool = (sessionId: string, title: string, updates: object[]): void => {
  const toolCallId = randomUUID()
  const call = { toolCallId, title, kind: 'execute', rawInput: { title } }
  update(sessionId, { sessionUpdate: 'tool_call', status: 'in_progress', ...call })
  for (const change of updates) update(sessionId, { sessionUpdate: 'tool_call_update', toolCallId, ...change })
  update(sessionId, { sessionUpdate: 'tool_call_update', toolCallId, status: 'completed' })
}

const step = async (sessionId: string, line: string): Promise<void> => {
  const [, verb = '', rest = ''] = /^(\w+) ?(.*)$/.exec(line) ?? []
  if (verb === 'say') update(sessionId, { sessionUpdate: 'agent_message_chunk', content: { type: 'text', text: rest } })
  if (verb === 'touch') {
    appendFileSync(path.join(workspaces.get(sessionId)!, rest), '')
    runTool(sessionId, line, [])
  }
  if (verb === 'print') {
    const [chars = 0, times = 0] = rest.split(' ').map(Number)
    const delta = { _meta: { terminal_output_delta: { data: 'x'.repeat(chars) } } }
    runTool(
      sessionId,
      line,
      Array.from({ length: times }, () => delta),
    )
  }
  if (verb === 'ask') {
    const headers = { authorization: `Bearer ${process.env['GATEWAY_KEY']}`, 'content-type': 'application/json' }
    const body = JSON.stringify({ model: 'lap', messages: [] })
    await fetch(`${process.env['GATEWAY_URL']}/chat/completions`, { method: 'POST', headers, body })
  }
  if (verb === 'fail') throw new Refusal(rest)
  if (verb === 'die') process.kill(process.pid, 'SIGKILL')
}

const ANSWERS: Record<string, (params: Record<string, unknown>) => object | Promise<object>> = {
  initialize: () => ({
    protocolVersion: 1,
    agentCapabilities: { loadSession: true, sessionCapabilities: { close: {} } },
  }),
  'session/new'({ cwd }) {
    const sessionId = randomUUID()
    workspaces.set(sessionId, String(cwd))
    return { sessionId }
  },
  'session/load'({ sessionId, cwd }) {
    workspaces.set(String(sessionId), String(cwd))
    return {}
  },
  async 'session/prompt'({ sessionId, prompt }) {
    const texts = (prompt as Block[]).map(({ text = '' }) => text)
    appendFileSync('prompts.jsonl', `${JSON.stringify(texts)}\n`)
    for (const line of texts.at(-1)!.split('\n')) await step(String(sessionId), line)
    return { stopReason: 'end_turn' }
  },
}

const answer = async ({ id, method, params }: Request): Promise<void> => {
  if (id === undefined) return
  appendFileSync('calls', `${method}\n`)
  while (textIn('hold').trim() === method) await sleep(10)
  try {
    if (takeOff('refuse', method)) throw new Refusal(`${method} is refused`)
    send({ id, result: (await ANSWERS[method]?.(params)) ?? {} })
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    send({ id, error: { code: -32603, message: error.message } })
  }
}

createInterface(process.stdin).on('line', (line) => void answer(JSON.parse(line) as Request))
