import {
  type Answer,
  type Dialect,
  errorTypeOf,
  isObject,
  jsonReply,
  objectsIn,
  offered,
  streamReply,
  textIn,
} from './dialect.ts'

const usage = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 }

const messageOf = (answer: Answer): { delta: object; finish: 'stop' | 'tool_calls' } => {
  if ('text' in answer) return { delta: { role: 'assistant', content: answer.text }, finish: 'stop' }
  const call = { name: answer.call.name, arguments: JSON.stringify(answer.call.arguments) }
  const calls = [{ index: 0, id: 'call_loopback', type: 'function', function: call }]
  return { delta: { role: 'assistant', content: null, tool_calls: calls }, finish: 'tool_calls' }
}

/** OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat */
export const chat: Dialect = {
  read: (body) => ({
    model: textIn(body['model']),
    stream: body['stream'] === true,
    tools: objectsIn(body['tools']).flatMap((tool) =>
      isObject(tool['function']) ? offered(tool['function']['name'], tool['function']['parameters']) : [],
    ),
    hasToolResult: objectsIn(body['messages']).some(({ role }) => role === 'tool'),
  }),
  // Only this dialect has to be asked for the usage of a stream.
  rewrite: (body, model) => ({
    ...body,
    model,
    ...(body['stream'] === true
      ? { stream_options: { ...(isObject(body['stream_options']) ? body['stream_options'] : {}), include_usage: true } }
      : {}),
  }),
  write(answer, { model, stream }) {
    const { delta, finish } = messageOf(answer)
    const head = { id: 'loopback', created: 0, model }
    if (!stream) {
      const choices = [{ index: 0, message: delta, finish_reason: finish }]
      return jsonReply({ ...head, object: 'chat.completion', choices, usage })
    }
    const chunk = { ...head, object: 'chat.completion.chunk' }
    const frames = [
      { ...chunk, choices: [{ index: 0, delta, finish_reason: null }] },
      { ...chunk, choices: [{ index: 0, delta: {}, finish_reason: finish }] },
      { ...chunk, choices: [], usage },
    ]
    return streamReply(frames, { named: false, end: 'data: [DONE]\n\n' })
  },
  refuse: ({ message, type, status }) => ({
    error: { message, type: type ?? errorTypeOf(status), param: null, code: String(status) },
  }),
  isRefusal: ({ error }) => isObject(error) && typeof error['message'] === 'string',
}
