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

/** A block of content, empty as a stream begins it, with what is then added to it. */
const blockOf = (answer: Answer) =>
  'text' in answer
    ? {
        reason: 'end_turn',
        empty: { type: 'text', text: '' },
        delta: { type: 'text_delta', text: answer.text },
        whole: { type: 'text', text: answer.text },
      }
    : {
        reason: 'tool_use',
        empty: { type: 'tool_use', id: 'toolu_loopback', name: answer.call.name, input: {} },
        delta: { type: 'input_json_delta', partial_json: JSON.stringify(answer.call.arguments) },
        whole: { type: 'tool_use', id: 'toolu_loopback', name: answer.call.name, input: answer.call.arguments },
      }

/** Anthropic's messages: https://docs.claude.com/en/api/messages */
export const messages: Dialect = {
  read: (body) => ({
    model: textIn(body['model']),
    stream: body['stream'] === true,
    tools: objectsIn(body['tools']).flatMap((tool) => offered(tool['name'], tool['input_schema'])),
    hasToolResult: objectsIn(body['messages']).some(({ content }) =>
      objectsIn(content).some(({ type }) => type === 'tool_result'),
    ),
  }),
  rewrite: (body, model) => ({ ...body, model }),
  write(answer, { model, stream }) {
    const { reason, empty, delta, whole } = blockOf(answer)
    const message = { id: 'msg_loopback', type: 'message', role: 'assistant', model, stop_sequence: null }
    const usage = { input_tokens: 1, output_tokens: 1 }
    if (!stream) return jsonReply({ ...message, content: [whole], stop_reason: reason, usage })
    const frames = [
      { type: 'message_start', message: { ...message, content: [], stop_reason: null, usage } },
      { type: 'content_block_start', index: 0, content_block: empty },
      { type: 'content_block_delta', index: 0, delta },
      { type: 'content_block_stop', index: 0 },
      { type: 'message_delta', delta: { stop_reason: reason, stop_sequence: null }, usage },
      { type: 'message_stop' },
    ]
    return streamReply(frames, { named: true })
  },
  refuse: ({ message, type, status }) => ({
    type: 'error',
    error: { type: type ?? errorTypeOf(status), message },
  }),
  isRefusal: ({ type, error }) => type === 'error' && isObject(error) && typeof error['message'] === 'string',
}
