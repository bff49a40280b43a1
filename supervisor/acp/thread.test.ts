import { expect, test } from '@jest/globals'
import { createReplyCollector } from '../../domain/reply.ts'
import type { HarnessEvent } from '../harness.ts'
import { createThread } from './thread.ts'

const sessionID = 'ses_1'
const chunk = (sessionUpdate: 'agent_message_chunk' | 'agent_thought_chunk' | 'user_message_chunk', text: string) => ({
  sessionUpdate,
  content: { type: 'text' as const, text },
})
const listen = () => {
  const events: HarnessEvent[] = []
  const collector = createReplyCollector()
  const thread = createThread({
    sessionID,
    model: 'lap',
    onEvent(event) {
      events.push(structuredClone(event))
      collector.hear(event)
    },
  })
  return { events, thread, collector }
}
const shape = (parts: { type: string; [key: string]: unknown }[] = []) =>
  parts.map(({ type, text, tool, state }) => (type === 'tool' ? { type, tool, state } : { type, text }))

test('the reply that is gathered from the events is the thread: thoughts, words and tools in their order', () => {
  const { thread, collector, events } = listen()
  thread.begin([{ type: 'text', text: 'hello' }])
  thread.hear(chunk('agent_thought_chunk', 'hm'))
  thread.hear(chunk('agent_message_chunk', 'I '))
  thread.hear(chunk('agent_message_chunk', ''))
  thread.hear(chunk('agent_message_chunk', 'look'))
  thread.hear({
    sessionUpdate: 'tool_call',
    toolCallId: 'c1',
    title: 'ls',
    name: 'Bash',
    kind: 'execute',
    rawInput: {},
  })
  thread.hear({
    sessionUpdate: 'tool_call_update',
    toolCallId: 'c1',
    status: 'in_progress',
    rawInput: { command: 'ls' },
  })
  thread.hear({ sessionUpdate: 'tool_call_update', toolCallId: 'c1', status: 'completed', rawOutput: 'a.txt' })
  thread.hear(chunk('agent_message_chunk', 'done'))
  thread.end(null)
  const expected = [
    { type: 'reasoning', text: 'hm' },
    { type: 'text', text: 'I look' },
    {
      type: 'tool',
      tool: 'Bash',
      state: {
        status: 'completed',
        input: { command: 'ls' },
        output: 'a.txt',
        title: 'ls',
        metadata: {},
        time: { start: expect.any(Number), end: expect.any(Number) },
      },
    },
    { type: 'text', text: 'done' },
  ]
  expect(shape(collector.reply()?.parts)).toEqual(expected)
  const [asked, answered] = thread.messages()
  expect(asked).toMatchObject({ info: { role: 'user' }, parts: [{ type: 'text', text: 'hello' }] })
  expect(shape(answered!.parts)).toEqual(expected)
  expect(answered!.info).toMatchObject({
    role: 'assistant',
    parentID: asked!.info['id'],
    time: { completed: expect.any(Number) },
  })
  expect(events.filter(({ type }) => type === 'message.part.delta').map(({ properties }) => properties['delta'])).toEqual([
    'hm', 'I ', 'look', 'done',
  ]) // prettier-ignore
  expect(events.at(-1)).toEqual({ type: 'session.idle', properties: { sessionID } })
})

test('a tool that still runs when its turn ends is closed as failed, and nobody asked for what comes later', () => {
  const { thread, collector } = listen()
  thread.begin([])
  thread.hear({ sessionUpdate: 'tool_call', toolCallId: 'c1', title: 'sleep', status: 'in_progress' })
  thread.end('The harness ended while this ran.')
  expect(collector.reply()).toMatchObject({
    info: { error: { data: { message: 'The harness ended while this ran.' } } },
    parts: [{ state: { status: 'error', error: 'The harness ended while this ran.' } }],
  })
  const before = JSON.stringify(thread.messages())
  thread.hear(chunk('agent_message_chunk', 'late'))
  thread.end(null)
  expect(JSON.stringify(thread.messages())).toBe(before)
})

test.each([
  ['as it is', { rawOutput: 'plain' }, 'plain'],
  ['as a field', { rawOutput: { output: 'of a shell', exitCode: 0 } }, 'of a shell'],
  [
    'as a block of code',
    { content: [{ type: 'content' as const, content: { type: 'text' as const, text: '```console\nhi\n```' } }] },
    'hi',
  ],
  ['by a terminal', { _meta: { terminal_output_delta: { data: 'from a terminal\n' } } }, 'from a terminal\n'],
])('the output of a tool is taken %s', (_how, told, output) => {
  const { thread, collector } = listen()
  thread.begin([])
  thread.hear({ sessionUpdate: 'tool_call', toolCallId: 'c1', title: 't' })
  thread.hear({ sessionUpdate: 'tool_call_update', toolCallId: 'c1', status: 'completed', ...told })
  thread.end(null)
  expect(collector.reply()?.parts).toMatchObject([{ state: { status: 'completed', output } }])
})

test('what an agent tells again is a thread without events', () => {
  const { thread, events } = listen()
  for (const [asked, said] of [
    ['one', 'first'],
    ['two', 'second'],
  ] as const) {
    thread.replay(chunk('user_message_chunk', asked))
    thread.replay(chunk('agent_message_chunk', said))
  }
  expect(thread.messages().map(({ info, parts }) => [info['role'], parts.map(({ text }) => text).join('')])).toEqual([
    ['user', 'one'],
    ['assistant', 'first'],
    ['user', 'two'],
    ['assistant', 'second'],
  ])
  expect(events).toEqual([])
})

test.each([
  [
    'terminal',
    (data: string) => ({ _meta: { terminal_output_delta: { data } } }),
    /^x+\n… \(2000000 characters in all\)$/,
  ],
  ['output', (output: string) => ({ rawOutput: { output } }), /^y+\n… \(1000000 characters in all\)$/],
  [
    'content',
    (text: string) => ({ content: [{ type: 'content' as const, content: { type: 'text' as const, text } }] }),
    /^y+\n… \(1000000 characters in all\)$/,
  ],
])('of what a tool tells by its %s no more is held than is shown', (_what, tells, all) => {
  const { thread, collector } = listen()
  thread.begin([])
  thread.hear({ sessionUpdate: 'tool_call', toolCallId: 'c1', title: 't' })
  for (let i = 0; i < 100; i++)
    thread.hear({ sessionUpdate: 'tool_call_update', toolCallId: 'c1', ...tells('x'.repeat(10_000)) })
  const long = tells('y'.repeat(1_000_000))
  thread.hear({ sessionUpdate: 'tool_call_update', toolCallId: 'c1', ...long, status: 'completed' })
  expect(JSON.stringify(thread.call('c1')).length).toBeLessThan(210_000)
  const state = collector.reply()?.parts[0]?.['state'] as { output: string }
  expect(state.output.length).toBeLessThan(200_100)
  expect(state.output).toMatch(all)
  thread.hear({ sessionUpdate: 'tool_call_update', toolCallId: 'c1', title: 'later' })
  expect(collector.reply()?.parts[0]).toMatchObject({ state: { title: 'later', output: state.output } })
})
