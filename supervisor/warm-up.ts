/** The throwaway turn that makes a started harness a warm one, and the answers of the model it is given: no model is needed for it. */

export const WARM_UP_PROMPT = 'Run the shell command `true` once, then say that you are ready.'

type Tool = { function?: { name?: string; parameters?: { properties?: Record<string, unknown>; required?: string[] } } }
export type ChatRequest = {
  model?: string
  stream?: boolean
  messages?: { role?: string }[]
  tools?: Tool[]
  [key: string]: unknown
}

const SHELL_TOOLS = ['bash', 'shell', 'run', 'execute']

const shellOf = (request: ChatRequest): Tool['function'] =>
  request.tools?.map((tool) => tool.function).find((tool) => SHELL_TOOLS.includes(tool?.name?.toLowerCase() ?? ''))

/** Whether the harness has used its tool and come back with the result. */
export const hasToolResult = (request: ChatRequest): boolean =>
  request.messages?.some((message) => message.role === 'tool') === true

const message = (request: ChatRequest): { delta: object; finish: 'tool_calls' | 'stop' } => {
  const shell = shellOf(request)
  if (shell === undefined || hasToolResult(request))
    return { delta: { role: 'assistant', content: 'Ready.' }, finish: 'stop' }
  const call = { name: shell.name, arguments: JSON.stringify({ command: 'true', description: 'Does nothing' }) }
  const calls = [{ index: 0, id: 'call_warm', type: 'function', function: call }]
  return { delta: { role: 'assistant', content: null, tool_calls: calls }, finish: 'tool_calls' }
}

const usage = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 }

/** A complete chat completion, as text of the response's body. */
export const warmUpReply = (request: ChatRequest): { contentType: string; body: string } => {
  const { delta, finish } = message(request)
  const head = { id: 'warm-up', created: 0, model: request.model ?? '' }
  if (request.stream !== true) {
    const choices = [{ index: 0, message: delta, finish_reason: finish }]
    const body = JSON.stringify({ ...head, object: 'chat.completion', choices, usage })
    return { contentType: 'application/json', body }
  }
  const chunk = (choices: object[], rest: object = {}): string =>
    `data: ${JSON.stringify({ ...head, object: 'chat.completion.chunk', choices, ...rest })}\n\n`
  const body = [
    chunk([{ index: 0, delta, finish_reason: null }]),
    chunk([{ index: 0, delta: {}, finish_reason: finish }]),
    chunk([], { usage }),
    'data: [DONE]\n\n',
  ].join('')
  return { contentType: 'text/event-stream', body }
}
