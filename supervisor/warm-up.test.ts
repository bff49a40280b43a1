import { expect, test } from '@jest/globals'
import { startLoopback } from './loopback.ts'

const text = { type: 'string' }
const properties = (...names: string[]) => Object.fromEntries(names.map((name) => [name, text]))

/** The shell tool as each harness offers it, among others; and the arguments that it takes. */
const SHELLS = {
  opencode: { name: 'bash', properties: properties('command', 'description'), required: ['command', 'description'] },
  claude: { name: 'Bash', properties: properties('command', 'description', 'timeout'), required: ['command'] },
  codex: { name: 'exec_command', properties: properties('cmd', 'workdir'), required: ['cmd'] },
  'codex before': { name: 'shell', properties: { command: { type: 'array' } }, required: ['command'] },
  qwen: {
    name: 'run_shell_command',
    properties: { command: text, is_background: { type: 'boolean' } },
    required: ['command', 'is_background'],
  },
}
const EXPECTED = {
  opencode: { command: 'true', description: 'Does nothing' },
  claude: { command: 'true' },
  codex: { cmd: 'true' },
  'codex before': { command: ['true'] },
  qwen: { command: 'true', is_background: false },
}

type Shell = (typeof SHELLS)[keyof typeof SHELLS]
type Json = Record<string, any> // oxlint-disable-line typescript/no-explicit-any

/** The events of a stream. */
const events = (body: string): Json[] =>
  body
    .split('\n')
    .filter((line) => line.startsWith('data: {'))
    .map((line) => JSON.parse(line.slice(6)) as Json)

/** How each dialect asks, gives back what a tool has said, and is read. */
const DIALECTS = {
  '/v1/chat/completions': {
    ask: ({ name, ...schema }: Shell) => ({
      messages: [{ role: 'user', content: 'x' }],
      tools: [
        { type: 'function', function: { name: 'read', parameters: {} } },
        { type: 'function', function: { name, parameters: schema } },
      ],
    }),
    result: { messages: [{ role: 'user' }, { role: 'assistant' }, { role: 'tool', content: '' }] },
    call: (body: Json) => [
      body['choices'][0].message.tool_calls[0].function.name,
      JSON.parse(body['choices'][0].message.tool_calls[0].function.arguments),
    ],
    streamed: (all: Json[]) => {
      expect(all.at(-2)!['choices'][0].finish_reason).toBe('tool_calls')
      const { name, arguments: json } = all[0]!['choices'][0].delta.tool_calls[0].function
      return [name, JSON.parse(json)]
    },
    said: (body: Json) => body['choices'][0].message.content,
  },
  '/v1/messages': {
    ask: ({ name, ...schema }: Shell) => ({
      messages: [{ role: 'user', content: 'x' }],
      tools: [
        { name: 'Read', input_schema: {} },
        { name, input_schema: schema },
      ],
    }),
    result: { messages: [{ role: 'user', content: [{ type: 'tool_result', content: '' }] }] },
    call: (body: Json) => {
      expect(body['stop_reason']).toBe('tool_use')
      return [body['content'][0].name, body['content'][0].input]
    },
    streamed: (all: Json[]) => {
      expect(all.map(({ type }) => type)).toEqual([
        'message_start', 'content_block_start', 'content_block_delta', 'content_block_stop', 'message_delta', 'message_stop',
      ]) // prettier-ignore
      return [all[1]!['content_block'].name, JSON.parse(all[2]!['delta'].partial_json)]
    },
    said: (body: Json) => body['content'][0].text,
  },
  '/v1/responses': {
    ask: ({ name, ...schema }: Shell) => ({
      input: 'x',
      tools: [{ type: 'web_search' }, { type: 'function', name, parameters: schema }],
    }),
    result: { input: [{ type: 'message' }, { type: 'function_call' }, { type: 'function_call_output' }] },
    call: (body: Json) => [body['output'][0].name, JSON.parse(body['output'][0].arguments)],
    streamed: (all: Json[]) => {
      expect(all.map(({ sequence_number }) => sequence_number)).toEqual(all.map((_, i) => i))
      expect([all[0]!['type'], all.at(-1)!['type']]).toEqual(['response.created', 'response.completed'])
      const { item } = all.find(({ type }) => type === 'response.output_item.done')!
      return [item.name, JSON.parse(item.arguments)]
    },
    said: (body: Json) => body['output'][0].content[0].text,
  },
}

const cases = Object.entries(DIALECTS).flatMap(([path, dialect]) =>
  Object.keys(SHELLS).map((harness) => ({ path, dialect, harness: harness as keyof typeof SHELLS })),
)

const start = async () => {
  const own = await startLoopback(() => undefined)
  const post = (path: string, body: object): Promise<Response> =>
    fetch(new URL(path, own.url), {
      method: 'POST',
      headers: { 'x-api-key': own.key },
      body: JSON.stringify({ model: 'lap', ...body }),
    })
  return { own, post, [Symbol.asyncDispose]: () => own.close() }
}

test.each(cases)(
  '$path: the shell tool of $harness is called, streamed or whole',
  async ({ path, dialect, harness }) => {
    await using loopback = await start()
    const ask = dialect.ask(SHELLS[harness])
    const expected = [SHELLS[harness].name, EXPECTED[harness]]
    expect(dialect.call((await (await loopback.post(path, ask)).json()) as Json)).toEqual(expected)
    const streamed = await loopback.post(path, { ...ask, stream: true })
    expect(streamed.headers.get('content-type')).toBe('text/event-stream')
    expect(dialect.streamed(events(await streamed.text()))).toEqual(expected)
  },
)

test.each(Object.entries(DIALECTS))(
  '%s: after the result comes a text, and the harness is warm',
  async (path, dialect) => {
    await using loopback = await start()
    await loopback.post(path, dialect.ask(SHELLS.claude))
    expect(loopback.own.warmedUp()).toBe(false)
    const ask = { ...dialect.ask(SHELLS.claude), ...dialect.result }
    expect(dialect.said((await (await loopback.post(path, ask)).json()) as Json)).toBe('Ready.')
    expect(await (await loopback.post(path, { ...ask, stream: true })).text()).toContain('Ready.')
    expect(loopback.own.warmedUp()).toBe(true)
  },
)

test.each(Object.keys(DIALECTS))('%s: who offers no tool, or nothing at all, is told a text', async (path) => {
  await using loopback = await start()
  expect(await (await loopback.post(path, {})).text()).toContain('Ready.')
  expect(await (await loopback.post(path, { messages: 1, input: null, tools: 'x' })).text()).toContain('Ready.')
})
