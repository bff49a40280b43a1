import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { createDemoGateway, type DemoGateway } from './gateway.ts'

const KEY = 'demo-key'
let gateway: DemoGateway
beforeAll(async () => {
  gateway = await createDemoGateway({ port: 0, host: '127.0.0.1', key: KEY })
})
afterAll(() => gateway.close())

type Choice = {
  finish_reason: string | null
  message: { content: string | null; tool_calls?: { id: string; function: { name: string; arguments: string } }[] }
  delta: {
    content?: string | null
    tool_calls?: { index: number; id: string; function: { name: string; arguments: string } }[]
  }
}
type Completion = {
  id: string
  object: string
  model: string
  choices: Choice[]
  usage?: Record<string, number>
  error?: { message: string; code: string }
}

const post = (body: unknown, key = KEY, path = '/v1/chat/completions'): Promise<Response> =>
  fetch(gateway.url + path, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })
const json = async (response: Response): Promise<Completion> => {
  const body: Completion = JSON.parse(await response.text())
  return body
}
const user = (content: unknown) => ({ role: 'user', content })
const ask = async (messages: unknown[], more: object = {}): Promise<Completion> =>
  json(await post({ model: 'demo', messages, ...more }))
const textOf = (completion: Completion): string => completion.choices[0]?.message.content ?? ''

/** As opencode offers it: `description` is required too. */
const bash = {
  type: 'function',
  function: {
    name: 'bash',
    parameters: {
      type: 'object',
      properties: { command: { type: 'string' }, timeout: { type: 'number' }, description: { type: 'string' } },
      required: ['command', 'description'],
    },
  },
}
const read = {
  type: 'function',
  function: { name: 'read', parameters: { type: 'object', properties: { filePath: { type: 'string' } } } },
}

const readStream = async (response: Response): Promise<Completion[]> => {
  expect(response.headers.get('content-type')).toBe('text/event-stream')
  const frames = (await response.text()).split('\n\n').filter(Boolean)
  expect(frames.pop()).toBe('data: [DONE]')
  return frames.map((frame) => {
    const chunk: Completion = JSON.parse(frame.replace(/^data: /, ''))
    return chunk
  })
}

describe('the demo model', () => {
  test('repeats what the user said, and says that it is a demo', async () => {
    const completion = await ask([{ role: 'system', content: 'be good' }, user('hello there')])
    expect(textOf(completion)).toBe('[demo model] You said: hello there')
    expect(completion).toMatchObject({ object: 'chat.completion', model: 'demo' })
    expect(completion.choices[0]?.finish_reason).toBe('stop')
    expect(completion.usage?.['total_tokens']).toBe(
      (completion.usage?.['prompt_tokens'] ?? 0) + (completion.usage?.['completion_tokens'] ?? 0),
    )
    expect(completion.usage?.['completion_tokens']).toBeGreaterThan(0)
  })

  test('answers the last message only, and not what the harness added to it', async () => {
    const completion = await ask([
      user('first'),
      { role: 'assistant', content: 'one' },
      user([
        { type: 'text', text: 'second' },
        { type: 'text', text: '<system-reminder>\n$ rm -rf /\n</system-reminder>' },
      ]),
      user('<system-reminder>be quick</system-reminder>'),
    ])
    expect(textOf(completion)).toBe('[demo model] You said: second')
  })

  test('gives the last line that starts with "$ " to the shell tool', async () => {
    const completion = await ask([user('please:\n$ echo no\n  $ git log --oneline\nthanks')], { tools: [read, bash] })
    const choice = completion.choices[0]
    expect(choice?.finish_reason).toBe('tool_calls')
    expect(choice?.message.content).toBeNull()
    const call = choice?.message.tool_calls?.[0]
    expect(call?.function.name).toBe('bash')
    expect(JSON.parse(call?.function.arguments ?? '')).toEqual({
      command: 'git log --oneline',
      description: expect.stringMatching(/.+/),
    })
  })

  test('gives a command as a list to a shell tool that wants one', async () => {
    const shell = {
      type: 'function',
      function: { name: 'shell', parameters: { properties: { command: { type: 'array' } }, required: ['command'] } },
    }
    const completion = await ask([user('$ ls')], { tools: [shell] })
    const call = completion.choices[0]?.message.tool_calls?.[0]
    expect(JSON.parse(call?.function.arguments ?? '')).toEqual({ command: ['bash', '-lc', 'ls'] })
  })

  test('reports the output once the tool has run, and calls it again for the next command', async () => {
    const call = { id: 'call_1', type: 'function', function: { name: 'bash', arguments: '{"command":"ls"}' } }
    const thread = [
      user('$ ls'),
      { role: 'assistant', content: null, tool_calls: [call] },
      { role: 'tool', tool_call_id: 'call_1', content: 'README.md\nsrc\n' },
    ]
    const report = await ask(thread, { tools: [bash] })
    expect(textOf(report)).toBe('[demo model] `ls` printed:\n\n```\nREADME.md\nsrc\n```')
    const next = await ask([...thread, { role: 'assistant', content: textOf(report) }, user('$ pwd')], {
      tools: [bash],
    })
    expect(next.choices[0]?.finish_reason).toBe('tool_calls')
  })

  test('says so when there is no shell tool', async () => {
    expect(textOf(await ask([user('$ ls')], { tools: [read] }))).toContain('no shell tool')
  })

  test('gives a short title when the harness asks for one', async () => {
    const completion = await ask([
      { role: 'system', content: 'You are a title generator. You output ONLY a thread title.' },
      user('Generate a title for this conversation:\n'),
      user(`$ git log ${'very '.repeat(40)}long`),
    ])
    expect(textOf(completion)).toMatch(/^\[demo model\] \$ git log very/)
    expect(textOf(completion).length).toBeLessThan(80)
  })
})

describe('a stream', () => {
  test('carries the same text in pieces, and usage only if asked for', async () => {
    const body = { model: 'demo', messages: [user('one two  three\nfour')], stream: true }
    const plain = await readStream(await post(body))
    expect(plain.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('')).toBe(
      '[demo model] You said: one two  three\nfour',
    )
    expect(plain.length).toBeGreaterThan(4)
    expect(plain.at(-1)?.choices[0]?.finish_reason).toBe('stop')
    expect(plain.some((chunk) => chunk.usage !== undefined)).toBe(false)
    const counted = await readStream(await post({ ...body, stream_options: { include_usage: true } }))
    expect(counted.at(-1)).toMatchObject({ choices: [], usage: { total_tokens: expect.any(Number) } })
    expect(new Set(counted.map(({ id }) => id)).size).toBe(1)
  })

  test('carries a tool call', async () => {
    const chunks = await readStream(
      await post({ model: 'demo', messages: [user('$ ls')], tools: [bash], stream: true }),
    )
    const [call] = chunks.flatMap((chunk) => chunk.choices[0]?.delta.tool_calls ?? [])
    expect(call).toMatchObject({ index: 0, function: { name: 'bash' } })
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('tool_calls')
  })

  test('that its client leaves does not harm the gateway', async () => {
    const abort = new AbortController()
    const response = await fetch(`${gateway.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${KEY}` },
      body: JSON.stringify({ model: 'demo', messages: [user('word '.repeat(500))], stream: true }),
      signal: abort.signal,
    })
    expect(response.status).toBe(200)
    abort.abort()
    expect(textOf(await ask([user('still there?')]))).toContain('still there?')
  })
})

describe('the gateway', () => {
  test('lists one model, labelled as the demo, with and without /v1', async () => {
    for (const path of ['/v1/models', '/models']) {
      const response = await fetch(gateway.url + path, { headers: { authorization: `Bearer ${KEY}` } })
      expect(await response.json()).toEqual({
        object: 'list',
        data: [{ id: 'demo', object: 'model', created: 0, owned_by: 'lap-built-in-demo' }],
      })
    }
    expect((await post({ model: 'demo', messages: [user('x')] }, KEY, '/chat/completions')).status).toBe(200)
  })

  test('wants its key', async () => {
    expect((await post({ model: 'demo', messages: [] }, 'wrong')).status).toBe(401)
    expect((await fetch(`${gateway.url}/v1/models`)).status).toBe(401)
  })

  test.each([
    ['{', 400, 'invalid_json'],
    ['[]', 400, 'invalid_request_error'],
    [{ model: 'demo' }, 400, 'invalid_request_error'],
    [{ model: 'gpt-9', messages: [] }, 404, 'model_not_found'],
  ])('answers %j with %i %s', async (body, status, code) => {
    const response = await post(body)
    expect(response.status).toBe(status)
    expect((await json(response)).error?.code).toBe(code)
  })

  test('answers an unknown path with 404', async () => {
    expect((await post({}, KEY, '/v1/embeddings')).status).toBe(404)
  })
})
