import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import type { MessagePart } from '../domain/turn.ts'
import { buildConversation } from '../test/conversation.ts'
import type { Conversation } from '../test/conversation.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { abortTurns, deleteQueued, editQueued, listQueue, sendNow } from './queue.ts'
import { endSession } from './session-end.ts'
import type { Sql } from './sql.ts'
import { listTurns } from './thread.ts'
import { startTurn } from './turns.ts'

let database: TestDatabase
let sql: Sql
let talk: Conversation

beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  talk = await buildConversation(sql)
})

const ids = (turnId: string) => ({ sessionId: talk.id, turnId })
const says = (text: string) => (): MessagePart[] => [{ type: 'text', text }]
const textsOf = (turns: { parts: MessagePart[] }[]) => turns.map(({ parts }) => parts[0]?.['text'])
const queued = async () => textsOf(await listQueue(sql, talk.id))
const logOf = async (...types: string[]) => (await talk.log()).filter(({ type }) => types.includes(type))

/** One that runs, and three behind it. */
const fill = async () => {
  const [running, a, b, c] = [
    await talk.send('running'),
    await talk.send('a'),
    await talk.send('b'),
    await talk.send('c'),
  ]
  expect([running.status, a.status, b.status, c.status]).toEqual(['running', 'queued', 'queued', 'queued'])
  return { running, a, b, c }
}

test('the queue is what waits, in order, without what is in its files', async () => {
  const { b } = await fill()
  const url = `data:image/png;base64,${'A'.repeat(100)}`
  await editQueued(sql, ids(b.id), () => [
    { type: 'text', text: 'b' },
    { type: 'file', mime: 'image/png', filename: 'b.png', url },
  ])
  const queue = await listQueue(sql, talk.id)
  expect(textsOf(queue)).toEqual(['a', 'b', 'c'])
  expect(queue[1]?.parts[1]).toEqual({ type: 'file', mime: 'image/png', filename: 'b.png' })
})

test('a message that waits is changed, and begins as it was changed; the same change again changes nothing', async () => {
  const { running, a } = await fill()
  expect(await editQueued(sql, ids(a.id), says('better'))).toMatchObject({ edited_at: expect.any(Date) })
  await editQueued(sql, ids(a.id), says('better'))
  expect(await logOf('turn.edited')).toEqual([
    { type: 'turn.edited', data: { turn_id: a.id, parts: [{ type: 'text', text: 'better' }] } },
  ])
  await talk.finish(running.id)
  expect(await startTurn(sql, a.id, talk.sandbox.id)).toMatchObject({ parts: [{ text: 'better' }] })
})

test('a message that runs, is over or was deleted is neither changed nor deleted, and the refusal says what it is', async () => {
  const { running, a } = await fill()
  const refused = (turnId: string, reason: string, what: string) =>
    Promise.all(
      [editQueued(sql, ids(turnId), says('x')), deleteQueued(sql, ids(turnId))].map((call) =>
        expect(call).rejects.toMatchObject({ code: 'conflict', reason, message: expect.stringContaining(what) }),
      ),
    )
  await refused(running.id, 'turn_started', 'runs already')
  await talk.finish(running.id)
  await refused(running.id, 'turn_over', 'is done')
  await expect(sendNow(sql, ids(running.id))).rejects.toMatchObject({ reason: 'turn_over' })
  await deleteQueued(sql, ids(a.id))
  await expect(editQueued(sql, ids(a.id), says('x'))).rejects.toMatchObject({
    reason: 'turn_over',
    message: expect.stringContaining('was deleted'),
  })
})

test('what is deleted leaves queue and conversation, never begins, and its key still answers with it', async () => {
  const { running } = await fill()
  const wrong = await talk.send('wrong', { key: 'k' })
  expect((await deleteQueued(sql, ids(wrong.id))).status).toBe('cancelled')
  await deleteQueued(sql, ids(wrong.id))
  expect(await queued()).toEqual(['a', 'b', 'c'])
  expect(textsOf(await listTurns(sql, talk.id))).toEqual(['running', 'a', 'b', 'c'])
  expect(await logOf('turn.finished')).toMatchObject([
    { data: { turn_id: wrong.id, status: 'cancelled', error: { code: 'deleted' } } },
  ])
  await talk.finish(running.id)
  expect(await startTurn(sql, wrong.id, talk.sandbox.id)).toBeNull()
  expect(await talk.send('wrong', { key: 'k' })).toMatchObject({ id: wrong.id, status: 'cancelled' })
})

test('a message sent now runs next; the running one is to stop, once; the others keep their order behind it', async () => {
  const { running, c } = await fill()
  const first = await sendNow(sql, ids(c.id))
  expect(first).toMatchObject({ turn: { status: 'queued' }, interrupted: { turnId: running.id } })
  expect(first.interrupted?.sandbox?.id).toBe(talk.sandbox.id)
  expect(await queued()).toEqual(['c', 'a', 'b'])
  expect((await sendNow(sql, ids(c.id))).interrupted?.turnId).toBe(running.id)
  expect(await logOf('turn.moved', 'turn.interrupt_requested')).toEqual([
    { type: 'turn.moved', data: { turn_id: c.id, position: 0 } },
    { type: 'turn.interrupt_requested', data: { turn_id: running.id, reason: 'send_now' } },
  ])
  const seqs = (await talk.turns()).map(({ seq }) => seq)
  expect(seqs).toEqual([1, 2, 3, 4])
  await talk.finish(running.id, undefined, 'cancelled')
  expect(await startTurn(sql, c.id, talk.sandbox.id)).toMatchObject({ status: 'running' })
  // What was wanted is done.
  expect(await sendNow(sql, ids(c.id))).toMatchObject({ turn: { status: 'running' }, interrupted: null })
  expect((await talk.turns()).find(({ id }) => id === c.id)?.interrupt_requested_at).toBeNull()
})

test('a turn that was decided on begins only if it is still the next, and while none runs', async () => {
  const { running, a, c } = await fill()
  expect(await startTurn(sql, a.id, talk.sandbox.id)).toBeNull()
  await talk.finish(running.id)
  await sendNow(sql, ids(c.id))
  expect(await startTurn(sql, a.id, talk.sandbox.id)).toBeNull()
  expect(await startTurn(sql, c.id, talk.sandbox.id)).toMatchObject({ status: 'running' })
  expect(await queued()).toEqual(['a', 'b'])
})

test('of two messages sent now the later one runs first', async () => {
  const { b, c } = await fill()
  await sendNow(sql, ids(b.id))
  await sendNow(sql, ids(c.id))
  expect(await queued()).toEqual(['c', 'b', 'a'])
})

test('a message is changed or begins, whoever comes first: never both', async () => {
  for (let round = 0; round < 20; round++) {
    talk = await buildConversation(sql)
    const { running, a } = await fill()
    await talk.finish(running.id)
    const [edited, started] = await Promise.all([
      editQueued(sql, ids(a.id), says('changed')).catch((error: { reason?: string }) => error.reason),
      startTurn(sql, a.id, talk.sandbox.id),
    ])
    expect(started?.status).toBe('running')
    expect(started?.parts[0]?.['text']).toBe(edited === 'turn_started' ? 'a' : 'changed')
  }
})

test('an abort cancels what waits and has the running turn stop, in one step; nothing is told twice', async () => {
  const { running, a, b, c } = await fill()
  expect(await abortTurns(sql, talk.id)).toMatchObject({ turnId: running.id })
  expect(await abortTurns(sql, talk.id)).toMatchObject({ turnId: running.id })
  expect(await queued()).toEqual([])
  expect((await logOf('turn.finished')).map(({ data }) => data['turn_id'])).toEqual([a.id, b.id, c.id])
  expect(await logOf('turn.interrupt_requested')).toHaveLength(1)
  expect((await talk.turns())[0]).toMatchObject({ status: 'running', interrupt_requested_at: expect.any(Date) })
  await talk.finish(running.id, undefined, 'cancelled')
  expect(await abortTurns(sql, talk.id)).toBeNull()
})

test('in a session that has ended nothing is changed', async () => {
  const { a } = await fill()
  await endSession(sql, talk.id, { status: 'dead', endReason: 'deleted' })
  for (const call of [editQueued(sql, ids(a.id), says('x')), deleteQueued(sql, ids(a.id)), sendNow(sql, ids(a.id))])
    await expect(call).rejects.toMatchObject({ code: 'gone' })
})

test('a message of another session is not found', async () => {
  const { a } = await fill()
  const other = await buildConversation(sql)
  await expect(deleteQueued(sql, { sessionId: other.id, turnId: a.id })).rejects.toMatchObject({ code: 'not_found' })
})
