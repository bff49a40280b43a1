import { afterAll, beforeAll, expect, test } from '@jest/globals'
import type { TurnUsage } from '../domain/turn.ts'
import { buildConversation } from '../test/conversation.ts'
import type { Conversation } from '../test/conversation.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { endSession } from './session-end.ts'
import { changeLimits } from './session-limits.ts'
import type { Sql } from './sql.ts'
import { endTurn, startTurn } from './turns.ts'

let database: TestDatabase
let sql: Sql

beforeAll(async () => {
  database = await createTestDatabase()
  sql = database.db.sql
})
afterAll(async () => database[Symbol.asyncDispose]())

const limited = (max_turns: number | null, max_cost_usd: number | null = null) =>
  buildConversation(sql, { limits: { max_turns, max_cost_usd } })
const costs = (cost_usd: number | null): TurnUsage => ({
  input_tokens: 100,
  output_tokens: 20,
  cached_tokens: 50,
  requests: 2,
  cost_usd,
})
const refusal = { code: 'conflict', reason: 'limit_reached' }
const told = async (talk: Conversation) =>
  (await talk.log()).filter(({ type }) => type.startsWith('session.') || type === 'turn.finished')
const typesOf = async (talk: Conversation) => (await told(talk)).map(({ type }) => type)

test('the turn that reaches the number runs to its end, further messages are refused, and the log says so once', async () => {
  const talk = await limited(2)
  await talk.finish((await talk.send('one')).id)
  const second = await talk.send('two')
  await expect(talk.send('three')).rejects.toMatchObject({ ...refusal, message: expect.stringContaining('max_turns') })
  expect(await talk.session()).toMatchObject({ limit_reached: null, usage: { turns: 2 } })
  await talk.finish(second.id)
  expect(await talk.session()).toMatchObject({ status: 'ready', limit_reached: 'max_turns' })
  await expect(talk.send('three')).rejects.toMatchObject(refusal)
  expect((await told(talk)).slice(-2)).toMatchObject([
    { type: 'turn.finished', data: { turn_id: second.id, status: 'done' } },
    { type: 'session.limit_reached', data: { limit: 'max_turns', max: 2, used: 2 } },
  ])
})

test('messages that wait count: as many are taken as may run', async () => {
  const talk = await limited(3)
  await talk.send('one')
  await talk.send('two')
  await talk.send('three')
  await expect(talk.send('four')).rejects.toMatchObject(refusal)
  expect((await talk.turns()).map(({ status }) => status)).toEqual(['running', 'queued', 'queued'])
})

test('a key that is known is answered also when the limit has been reached', async () => {
  const talk = await limited(1)
  const first = await talk.send('one', { key: 'k' })
  await talk.finish(first.id)
  expect((await talk.send('one', { key: 'k' })).id).toBe(first.id)
})

test('when the cost is reached, what waits is refused with the reason; usage adds up over turns, also of one that was cancelled', async () => {
  const talk = await limited(null, 0.8)
  const first = await talk.send('one')
  await talk.finish(first.id, costs(0.7))
  const second = await talk.send('two')
  const waiting = await talk.send('three')
  await talk.finish(second.id, costs(0.1), 'cancelled')
  expect(await talk.session()).toMatchObject({
    limit_reached: 'max_cost_usd',
    usage: { turns: 2, input_tokens: 200, output_tokens: 40, cached_tokens: 100, requests: 4, cost_usd: 0.8 },
  })
  expect((await talk.turns()).at(-1)).toMatchObject({ status: 'cancelled', error: { code: 'limit_reached' } })
  expect((await told(talk)).slice(-3)).toMatchObject([
    { type: 'turn.finished', data: { turn_id: second.id } },
    { type: 'session.limit_reached', data: { limit: 'max_cost_usd', max: 0.8, used: 0.8 } },
    { type: 'turn.finished', data: { turn_id: waiting.id, status: 'cancelled', error: { code: 'limit_reached' } } },
  ])
  expect(await startTurn(sql, waiting.id, talk.sandbox.id)).toBeNull()
})

test('a gateway that tells no cost reaches no limit of it', async () => {
  const talk = await limited(null, 0.01)
  await talk.finish((await talk.send('one')).id, costs(null))
  expect(await talk.session()).toMatchObject({ limit_reached: null, usage: { cost_usd: null } })
  await talk.send('two')
})

test('a limit that is raised lets the session go on; the next one is told again', async () => {
  const talk = await limited(1)
  await talk.finish((await talk.send('one')).id)
  await changeLimits(sql, talk.id, { max_turns: 2 })
  expect(await talk.session()).toMatchObject({ limit_reached: null, max_turns: 2, max_cost_usd: null })
  const second = await talk.send('two')
  expect(second.status).toBe('running')
  await talk.finish(second.id)
  await changeLimits(sql, talk.id, { max_turns: null })
  await talk.send('three')
  expect((await typesOf(talk)).filter((type) => type.startsWith('session.'))).toEqual([
    'session.created',
    'session.ready',
    'session.limit_reached',
    'session.updated',
    'session.limit_reached',
    'session.updated',
  ])
})

test('a limit that is lowered below what was used stops the session at once, or at the end of the turn that runs', async () => {
  const idle = await limited(null)
  await idle.finish((await idle.send('one')).id)
  await changeLimits(sql, idle.id, { max_turns: 1 })
  expect((await idle.session()).limit_reached).toBe('max_turns')

  const busy = await limited(null)
  const running = await busy.send('one')
  const waiting = await busy.send('two')
  await changeLimits(sql, busy.id, { max_turns: 1 })
  expect((await busy.session()).limit_reached).toBeNull()
  await busy.finish(running.id)
  expect((await busy.turns()).find(({ id }) => id === waiting.id)).toMatchObject({ status: 'cancelled' })
  expect((await busy.session()).limit_reached).toBe('max_turns')
})

test('the same limits again are no change; those of a session that has ended stay', async () => {
  const talk = await limited(5)
  await changeLimits(sql, talk.id, { max_turns: 5 })
  expect(await typesOf(talk)).not.toContain('session.updated')
  await endSession(sql, talk.id, { status: 'dead', endReason: 'deleted' })
  await expect(changeLimits(sql, talk.id, { max_turns: 6 })).rejects.toMatchObject({ code: 'gone' })
})

test('a turn that was lost with its sandbox counts, and what it used is not known', async () => {
  const talk = await limited(1, 1)
  const { id } = await talk.send('one')
  await talk.move()
  await endTurn(sql, talk.id, { turnId: id, status: 'interrupted', reply: null, error: null, usage: null })
  expect(await talk.session()).toMatchObject({ limit_reached: 'max_turns', usage: { turns: 1, requests: 0 } })
})

test('ends that come twice count once', async () => {
  const talk = await limited(9)
  const { id } = await talk.send('one')
  await Promise.all([talk.finish(id, costs(0.5)), talk.finish(id, costs(0.5))])
  expect((await talk.session()).usage).toMatchObject({ turns: 1, cost_usd: 0.5 })
})
