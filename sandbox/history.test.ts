import { expect, test } from '@jest/globals'
import { retell } from './history.ts'
import type { ToldTurn } from './history.ts'

const turn = (said: string, reply: string | null, status: ToldTurn['status'] = 'done'): ToldTurn => ({
  status,
  parts: [{ type: 'text', text: said }],
  reply: reply === null ? null : { info: {}, parts: [{ type: 'text', text: reply }] },
  started_at: status === 'queued' ? null : new Date(0),
})

test('a conversation is told in its order', () => {
  expect(retell([turn('one', 'eins'), turn('two', 'zwei')], 1_000)).toEqual([
    { role: 'user', text: 'one' },
    { role: 'assistant', text: 'eins' },
    { role: 'user', text: 'two' },
    { role: 'assistant', text: 'zwei' },
  ])
})

test('the newest part that fits is told, and no turn is torn', () => {
  expect(retell([turn('old', 'x'.repeat(50)), turn('new', 'y'.repeat(50))], 80)).toEqual([
    { role: 'user', text: 'new' },
    { role: 'assistant', text: 'y'.repeat(50) },
  ])
})

test('of a last exchange that is too long alone the beginnings are told', () => {
  const told = retell([turn('old', 'x'), turn('q'.repeat(500), 'y'.repeat(500))], 200)
  expect(told.map(({ role, text }) => [role, text.length <= 110, text.slice(0, 3)])).toEqual([
    ['user', true, 'qqq'],
    ['assistant', true, 'yyy'],
  ])
})

test('a message that has not begun is left out, also one that never will, and one that was interrupted says so', () => {
  const takenBack = { ...turn('never said', null, 'cancelled'), started_at: null }
  expect(retell([turn('lost', null, 'interrupted'), takenBack, turn('waiting', null, 'queued')], 1_000)).toEqual([
    { role: 'user', text: 'lost\n[this message was interrupted]' },
  ])
})

test('results of tools are told, files only by name', () => {
  const done: ToldTurn = {
    status: 'done',
    started_at: new Date(0),
    parts: [{ type: 'file', filename: 'a.png', url: 'data:image/png;base64,AAAA' }],
    reply: { info: {}, parts: [{ type: 'tool', tool: 'bash', state: { input: { command: 'ls' }, output: 'a.png' } }] },
  }
  expect(retell([done], 1_000)).toEqual([
    { role: 'user', text: '[file a.png]' },
    { role: 'assistant', text: '[bash {"command":"ls"}: a.png]' },
  ])
})
