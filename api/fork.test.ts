import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { endSession } from '../db/session-end.ts'
import { startTestApi } from '../test/api.ts'
import type { Failure, TestApi } from '../test/api.ts'
import { conversationIn, exchange, startCheckpointSandbox, storeCheckpoint } from '../test/checkpoint-sandbox.ts'
import type { CheckpointSandbox } from '../test/checkpoint-sandbox.ts'
import type { Conversation } from '../test/conversation.ts'
import { openStream } from '../test/event-stream.ts'
import { createClientState } from '../test/stream-state.ts'
import type { ClientView } from '../test/stream-state.ts'
import type { Checkpoint } from './schemas/checkpoint.ts'
import type { Message } from './schemas/message.ts'
import type { Session } from './schemas/session.ts'

let api: TestApi
let sandbox: CheckpointSandbox
let session: Conversation
/** One behind each of two turns. */
let turns: string[]

beforeAll(async () => {
  api = await startTestApi({ env: { WARM_POOL_SIZE: '9' } })
  sandbox = await startCheckpointSandbox()
}, 60_000)
afterAll(async () => {
  await sandbox?.[Symbol.asyncDispose]()
  await api?.[Symbol.asyncDispose]()
}, 60_000)

beforeEach(async () => {
  session = await conversationIn(api.deps.sql, sandbox)
  turns = []
  for (const text of ['one', 'two']) {
    turns.push(await exchange(session, text))
    await storeCheckpoint(api.deps.sql, session.id)
  }
})

const fork = (body: object = {}, headers: Record<string, string> = {}) =>
  api.call<Session & Failure>('POST', `/sessions/${session.id}/fork`, { body, headers })
const checkpoints = async (id = session.id) => (await api.call<Checkpoint[]>('GET', `/sessions/${id}/checkpoints`)).body
const said = async (id: string): Promise<string[]> =>
  (await api.call<Message[]>('GET', `/sessions/${id}/messages`)).body.flatMap(({ info, parts }) =>
    info['role'] === 'user' ? [String(parts[0]!['text'])] : [],
  )

test('checkpoints are listed, the newest first, with what they hold', async () => {
  expect(await checkpoints()).toMatchObject([
    { session_id: session.id, turn_id: turns[1], store: 'postgres', bytes: 10, files: 3, omitted: [], omitted_more: 0 },
    { turn_id: turns[0] },
  ])
  expect((await api.call('GET', `/sessions/${crypto.randomUUID()}/checkpoints`)).status).toBe(404)
})

test('a fork has the conversation up to its checkpoint, says where it comes from, and leaves the other one as it was', async () => {
  await exchange(session, 'three')
  const before = await session.turns()
  const [newest] = await checkpoints()
  const { status, body } = await fork({ title: 'another way' })
  expect({ status, body }).toMatchObject({
    status: 200,
    body: {
      status: 'creating',
      title: 'another way',
      agent_id: (await session.session()).agent_id,
      forked_from: { session_id: session.id, checkpoint_id: newest!.id, turn_id: turns[1] },
      usage: { turns: 0 },
    },
  })
  expect(await said(body.id)).toEqual(['one', 'two'])
  expect(await session.turns()).toEqual(before)
  expect(await said(session.id)).toEqual(['one', 'two', 'three'])
})

test('a fork may begin at any checkpoint, named by itself or by its turn', async () => {
  const [, first] = await checkpoints()
  for (const body of [{ turn_id: turns[0] }, { checkpoint_id: first!.id }]) {
    const forked = await fork(body)
    expect(forked.body.forked_from).toMatchObject({ checkpoint_id: first!.id })
    expect(await said(forked.body.id)).toEqual(['one'])
  }
})

test('a repeated fork is the same session, and the key is of no use for anything else', async () => {
  const key = { 'idempotency-key': crypto.randomUUID() }
  const first = await fork({ title: 'a' }, key)
  const [again, other] = [await fork({ title: 'a' }, key), await fork({ title: 'b' }, key)]
  expect(again.body.id).toBe(first.body.id)
  expect(again.headers.get('idempotent-replayed')).toBe('true')
  expect(other).toMatchObject({ status: 409, body: { code: 'conflict' } })
  // Also when the checkpoint is gone.
  await api.deps.sql.query("update checkpoint set state = 'deleted' where session_id = $1", [session.id])
  expect((await fork({ title: 'a' }, key)).body.id).toBe(first.body.id)
  const both = crypto.randomUUID()
  await api.deps.sql.query("update checkpoint set state = 'stored' where session_id = $1", [session.id])
  const raced = await Promise.all(Array.from({ length: 4 }, () => fork({}, { 'idempotency-key': both })))
  expect(new Set(raced.map(({ body }) => body.id)).size).toBe(1)
})

test('an ended session can be forked for as long as it has checkpoints; then it is 409 and says so', async () => {
  await endSession(api.deps.sql, session.id, { status: 'dead', endReason: 'deleted' })
  expect((await fork()).status).toBe(200)
  await api.deps.sql.query("update checkpoint set state = 'deleted' where session_id = $1", [session.id])
  expect(await fork()).toMatchObject({ status: 409, body: { code: 'no_checkpoint' } })
  expect(await fork({ turn_id: turns[0] })).toMatchObject({ status: 409, body: { code: 'no_checkpoint' } })
})

test('what is wrong with a fork is named', async () => {
  const id = crypto.randomUUID()
  expect(await fork({ checkpoint_id: 'x' })).toMatchObject({
    status: 422,
    body: { details: [{ path: 'checkpoint_id' }] },
  })
  expect(await fork({ checkpoint_id: id, turn_id: id })).toMatchObject({
    status: 422,
    body: { details: [{ path: 'turn_id' }] },
  })
  expect(await fork({ prompt: 'x' })).toMatchObject({ status: 422 })
  expect(await fork({ checkpoint_id: id })).toMatchObject({ status: 409, body: { code: 'no_checkpoint' } })
  expect(await api.call('POST', `/sessions/${id}/fork`, { body: {} })).toMatchObject({ status: 404 })
})

test('a fork takes a warm sandbox of its agent when there is one', async () => {
  const { body: agent } = await api.call<{ id: string }>('POST', '/agents', {
    body: { model: 'demo', harness_id: 'light' },
  })
  const warm = await api.warmSandbox(agent.id)
  await api.deps.sql.query('update session set agent_id = $2 where id = $1', [session.id, agent.id])
  const [hit, miss] = [await fork(), await fork()]
  expect(hit.body).toMatchObject({ spawn_mode: 'warm', claim_outcome: 'hit', task_arn: warm.name })
  expect(miss.body).toMatchObject({ spawn_mode: 'cold' })
})

test('whoever has read the log of a fork, and its messages, shows what a snapshot shows', async () => {
  const { body } = await fork()
  const { body: earlier } = await api.call<Message[]>('GET', `/sessions/${body.id}/messages`)
  // Their streams end with it.
  await endSession(api.deps.sql, body.id, { status: 'dead', endReason: 'deleted' })
  const view = async (from: 'log' | 'snapshot'): Promise<ClientView> => {
    const state = createClientState(from, earlier)
    const query = from === 'snapshot' ? '?snapshot=1' : ''
    for (const frame of await (await openStream(api.urlOf(`/sessions/${body.id}/events${query}`))).rest())
      state.apply(frame)
    return state.view()
  }
  const [log, snapshot] = [await view('log'), await view('snapshot')]
  expect(log).toEqual(snapshot)
  expect(log.turns).toHaveLength(2)
})
