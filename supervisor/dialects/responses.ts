import { chat } from './chat.ts'
import { type Answer, type Dialect, type Json, jsonReply, objectsIn, offered, streamReply, textIn } from './dialect.ts'

const itemOf = (answer: Answer): Json =>
  'text' in answer
    ? {
        type: 'message',
        id: 'msg_loopback',
        status: 'completed',
        role: 'assistant',
        content: [{ type: 'output_text', text: answer.text, annotations: [] }],
      }
    : {
        type: 'function_call',
        id: 'fc_loopback',
        call_id: 'call_loopback',
        status: 'completed',
        name: answer.call.name,
        arguments: JSON.stringify(answer.call.arguments),
      }

/** What comes between an item's begin and its end. */
const deltasOf = (answer: Answer, item: Json): Json[] => {
  const at = { item_id: item['id'], output_index: 0 }
  if ('call' in answer) {
    const { arguments: json } = item
    return [
      { type: 'response.function_call_arguments.delta', ...at, delta: json },
      { type: 'response.function_call_arguments.done', ...at, arguments: json },
    ]
  }
  const part = { ...at, content_index: 0 }
  const { text } = answer
  return [
    { type: 'response.content_part.added', ...part, part: { type: 'output_text', text: '', annotations: [] } },
    { type: 'response.output_text.delta', ...part, delta: text },
    { type: 'response.output_text.done', ...part, text },
    { type: 'response.content_part.done', ...part, part: { type: 'output_text', text, annotations: [] } },
  ]
}

/** OpenAI's responses: https://platform.openai.com/docs/api-reference/responses */
export const responses: Dialect = {
  read: (body) => ({
    model: textIn(body['model']),
    stream: body['stream'] === true,
    tools: objectsIn(body['tools']).flatMap(({ type, name, parameters }) =>
      type === 'function' ? offered(name, parameters) : [],
    ),
    hasToolResult: objectsIn(body['input']).some(({ type }) => textIn(type).endsWith('_call_output')),
  }),
  rewrite: (body, model) => ({ ...body, model }),
  write(answer, { model, stream }) {
    const item = itemOf(answer)
    const usage = { input_tokens: 1, output_tokens: 1, total_tokens: 2 }
    const head = { id: 'resp_loopback', object: 'response', created_at: 0, model, error: null }
    const begun = { ...head, status: 'in_progress', output: [] }
    const whole = { ...head, status: 'completed', output: [item], usage }
    if (!stream) return jsonReply(whole)
    const frames = [
      { type: 'response.created', response: begun },
      { type: 'response.in_progress', response: begun },
      {
        type: 'response.output_item.added',
        output_index: 0,
        item: { ...item, status: 'in_progress', ...('text' in answer ? { content: [] } : { arguments: '' }) },
      },
      ...deltasOf(answer, item),
      { type: 'response.output_item.done', output_index: 0, item },
      { type: 'response.completed', response: whole },
    ]
    return streamReply(
      frames.map((frame, sequence_number) => ({ ...frame, sequence_number })),
      { named: true },
    )
  },
  refuse: chat.refuse,
  isRefusal: chat.isRefusal,
}
