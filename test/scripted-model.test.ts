import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { type ScriptedModel, startScriptedModel } from './scripted-model.ts'

let model: ScriptedModel
beforeAll(async () => {
  model = await startScriptedModel()
})
afterAll(async () => model.close())

type Reply = { choices: { message: { content: string | null; tool_calls?: { function: Named }[] } }[]; usage: unknown }
type Named = { name: string; arguments: string }

const ask = async (messages: object[], tools: object[] = []): Promise<Reply> => {
  const response = await fetch(`${model.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${model.key}` },
    body: JSON.stringify({ model: 'm', messages, tools: tools.map((each) => ({ function: each })) }),
  })
  return (await response.json()) as Reply
}
const said = async (messages: object[], tools?: object[]): Promise<string | null> =>
  (await ask(messages, tools)).choices[0]!.message.content
const called = async (text: string, ...tools: object[]) => {
  const { name, arguments: json } = (await ask([user(text)], tools)).choices[0]!.message.tool_calls![0]!.function
  return [name, JSON.parse(json)]
}

const user = (content: string) => ({ role: 'user', content })
const call = { role: 'assistant', content: null, tool_calls: [{}] }
const result = { role: 'tool', content: '' }

const tool = (name: string, properties: Record<string, string>, required: string[] = Object.keys(properties)) => ({
  name,
  parameters: {
    properties: Object.fromEntries(Object.entries(properties).map(([at, type]) => [at, { type }])),
    required,
  },
})
const opencode = tool('bash', { command: 'string', description: 'string' })
const qwen = tool('run_shell_command', { command: 'string', is_background: 'boolean' })
const codex = tool('exec_command', { cmd: 'string', timeout: 'number' }, ['cmd'])
const listing = tool('shell', { command: 'array' })

test.each([
  [opencode, ['bash', { command: 'ls', description: 'As told' }]],
  [qwen, ['run_shell_command', { command: 'ls', is_background: false }]],
  [codex, ['exec_command', { cmd: 'ls' }]],
  [listing, ['shell', { command: ['bash', '-lc', 'ls'] }]],
])('a command is run by the shell tool that is offered, with its own arguments', async (offered, expected) => {
  expect(await called('run ls', tool('read', {}), offered)).toEqual(expected)
})

test.each([
  [tool('write', { filePath: 'string', content: 'string' }), ['write', { filePath: '/a b', content: "it's\n$x" }]],
  [tool('Write', { file_path: 'string', content: 'string' }), ['Write', { file_path: '/a b', content: "it's\n$x" }]],
])('a file is written by the tool for files', async (offered, expected) => {
  const [name, { content, ...rest }] = (await called(String.raw`write /a it's\n$x`, opencode, offered)) as [
    string,
    Record<string, string>,
  ]
  expect([name, { ...rest, content }]).toEqual(JSON.parse(JSON.stringify(expected).replace('/a b', '/a')))
})

test('where there is no tool for files, the shell writes them', async () => {
  const [name, { cmd }] = (await called(String.raw`write notes/a.txt it's\n$x`, codex)) as [string, { cmd: string }]
  expect(name).toBe('exec_command')
  expect(cmd).toBe(`mkdir -p "$(dirname 'notes/a.txt')" && printf %s 'it'\\''s\n$x' > 'notes/a.txt'`)
})

test('a tool of a server is called by the end of its name', async () => {
  expect(await called('call add {"a":1}', opencode, tool('mcp__sums__add', { a: 'number' }))).toEqual([
    'mcp__sums__add',
    { a: 1 },
  ])
})

test('each result of a tool brings the next step, whatever the harness says in front of it and behind', async () => {
  const script = user('<system-reminder>\nsay no\n</system-reminder>\nrun a\nsay between\nrun b\nsay done')
  const remark = user('Operator note: nothing.')
  expect(await said([script, remark, call, result, remark], [opencode])).toBe('between')
  expect(await said([script, remark, call, result, call, result, remark], [opencode])).toBe('done')
})

test('a turn without a step is none of an earlier one', async () => {
  const earlier = [user('run a\nsay done'), call, result, { role: 'assistant', content: 'done' }]
  expect(await said([...earlier, user('hello')], [opencode])).toBe('Nothing to do.')
  expect(await said([...earlier, user('say new')], [opencode])).toBe('new')
})

test('what is not offered is not called', async () => {
  expect(await said([user('run ls')])).toBe('No tool for: run ls')
})

test('tokens are counted as told', async () => {
  expect((await ask([user('usage 100 20 40\nsay x')])).usage).toEqual({
    prompt_tokens: 100,
    completion_tokens: 20,
    total_tokens: 120,
    prompt_tokens_details: { cached_tokens: 40 },
  })
})
