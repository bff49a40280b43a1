import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import type { Sql } from '../db/sql.ts'
import { endSession } from '../db/session-end.ts'
import { decidePermission, listPermissions } from '../db/permissions.ts'
import { deleteQueued, editQueued, sendNow } from '../db/queue.ts'
import { changeLimits } from '../db/session-limits.ts'
import { endTurn, startTurn } from '../db/turns.ts'
import type { JournalEntry } from '../domain/supervisor-protocol.ts'
import { startTestApi } from '../test/api.ts'
import type { TestApi } from '../test/api.ts'
import { buildWrittenSession } from '../test/event-log.ts'
import type { WrittenSession } from '../test/event-log.ts'
import { openStream } from '../test/event-stream.ts'
import type { WireFrame } from '../test/event-stream.ts'
import { createPostgresCheckpoints } from '../db/checkpoint-archive.ts'
import { beginCheckpoint, checkpointFailed, checkpointStored } from '../db/checkpoints.ts'
import { manifest } from '../test/checkpoint-sandbox.ts'
import { createClientState } from '../test/stream-state.ts'
import type { ClientView } from '../test/stream-state.ts'
import { createRandom } from '../test/soak/random.ts'
import type { Random } from '../test/soak/random.ts'

let api: TestApi
let session: WrittenSession
beforeAll(async () => {
  api = await startTestApi()
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
})
beforeEach(async () => {
  session = await buildWrittenSession(api.deps)
})

const urlOf = (query = '?snapshot=1', kind = 'events'): string => api.urlOf(`/sessions/${session.id}/${kind}${query}`)
const isSnapshot = ({ data }: WireFrame): boolean => data.type === 'snapshot'
const say = (id: string, text: string) => ({
  type: 'message.part.updated',
  properties: { part: { id, messageID: 'msg_1', sessionID: 'ses_1', type: 'text', text } },
})
const assistant = { type: 'message.updated', properties: { info: { id: 'msg_1', sessionID: 'ses_1', role: 'assistant' } } } // prettier-ignore

/** Opens a stream and reads its snapshot. */
const snapshotNow = async (query = '?snapshot=1'): Promise<WireFrame> => {
  const stream = await openStream(urlOf(query))
  const frame = (await stream.until(isSnapshot)).at(-1)!
  stream.close()
  return frame
}

test('a client that joins amid a turn gets one frame with all there is, at the end of the log, and then what follows', async () => {
  const first = await session.begin('Earlier')
  await session.finish(first)
  const running = await session.begin('Go on')
  const waiting = await session.begin('And then')
  await session.hear(running, [assistant, say('prt_1', 'So '), { type: 'message.part.delta', properties: { messageID: 'msg_1', partID: 'prt_1', field: 'text', delta: 'far' } }]) // prettier-ignore
  await session.ask(running)
  const head = await session.lastSeq()

  const stream = await openStream(urlOf('?snapshot=1&follow=1'))
  const [opened, snapshot] = await stream.until(isSnapshot)
  expect(opened).toEqual({ id: null, data: { type: 'ready' } })
  expect(snapshot).toEqual({ id: head, data: { type: 'snapshot', seq: head, snapshot: expect.anything() } })
  const shown = await api.call('GET', `/sessions/${session.id}`)
  const thread = await api.call('GET', `/sessions/${session.id}/messages`)
  const asked = await api.call<object[]>('GET', `/sessions/${session.id}/permissions?status=open`)
  expect(asked.body).toHaveLength(1)
  expect(snapshot?.data['snapshot']).toEqual({
    session: shown.body,
    messages: thread.body,
    turn: {
      turn_id: running,
      created_at: expect.any(String),
      started_at: expect.any(String),
      reply: {
        info: assistant.properties.info,
        parts: [{ id: 'prt_1', messageID: 'msg_1', sessionID: 'ses_1', type: 'text', text: 'So far' }],
      },
      earlier: [],
      truncated: false,
    },
    queued: [{ turn_id: waiting, created_at: expect.any(String) }],
    permissions: asked.body,
  })
  expect(shown.body).toMatchObject({ last_seq: head })
  await session.hear(running, [say('prt_1', 'So far so good')])
  expect((await stream.until(({ id }) => id !== null)).map(({ id }) => id)).toEqual([head + 1])
  stream.close()
})

test('the raw stream has the snapshot as an event of the platform', async () => {
  const stream = await openStream(urlOf('?snapshot=1', 'stream'))
  const frames = await stream.until(({ id }) => id !== null)
  expect(frames).toEqual([
    { id: null, data: { type: 'stream.opened' } },
    { id: 2, data: { type: 'lap.snapshot', properties: (await snapshotNow()).data['snapshot'] } },
  ])
  stream.close()
})

test.each([
  ['Last-Event-ID', '?snapshot=1', { 'last-event-id': '2' }],
  ['?after=', '?snapshot=1&after=2', {}],
])('a client that comes back with %s goes on there, without another snapshot', async (_name, query, headers) => {
  await session.say(2)
  const stream = await openStream(urlOf(query), { headers })
  expect((await stream.until(({ id }) => id === 4)).map(({ id, data }) => [id, data.type])).toEqual([
    [null, 'ready'],
    [3, 'harness_event'],
    [4, 'harness_event'],
  ])
  stream.close()
})

test.each(['last-seen', '999999999'])(
  'after the cursor %s follow resync and a snapshot, not the log',
  async (cursor) => {
    await session.say(5)
    const stream = await openStream(urlOf(), { headers: { 'last-event-id': cursor } })
    const frames = await stream.until(isSnapshot)
    expect(frames.map(({ id, data }) => [id, data.type])).toEqual([[null, 'ready'], [null, 'resync'], [7, 'snapshot']]) // prettier-ignore
    stream.close()
  },
)

test('of a session that has ended a snapshot is all there is; whoever has it gets 204', async () => {
  const turn = await session.begin()
  await session.finish(turn)
  await endSession(api.deps.sql, session.id, { status: 'dead', endReason: 'deleted' })
  const frames = await (await openStream(urlOf())).rest()
  expect(frames.map(({ data }) => data.type)).toEqual(['ready', 'snapshot', 'done'])
  expect(frames[1]?.data).toMatchObject({ snapshot: { session: { status: 'dead', end_reason: 'deleted' }, turn: null, queued: [] } }) // prettier-ignore
  const again = await openStream(urlOf(), { headers: { 'last-event-id': String(frames[1]?.id) } })
  expect(again.status).toBe(204)
})

test('without follow a stream that began with a snapshot ends with the turn, and one that nothing runs in stays for the next', async () => {
  const idle = await openStream(urlOf())
  await idle.until(isSnapshot)
  const turn = await session.begin()
  const amid = await openStream(urlOf())
  await amid.until(isSnapshot)
  await session.finish(turn)
  for (const stream of [idle, amid]) {
    const frames = await stream.rest()
    expect(frames.at(-2)?.data).toMatchObject({ event: { type: 'turn.finished', data: { turn_id: turn } } })
    expect(frames.at(-1)?.data).toEqual({ type: 'done' })
  }
})

test('snapshot=yes is refused by name', async () => {
  const { status, body } = await api.call('GET', `/sessions/${session.id}/events?snapshot=yes`)
  expect({ status, body }).toMatchObject({
    status: 422,
    body: { details: [{ path: 'query.snapshot', message: 'must be 0 or 1' }] },
  })
})

test('a snapshot shows one moment, also when turns end, begin and are sent between its statements', async () => {
  const turn = await session.begin()
  await session.hear(turn, [assistant, say('prt_1', 'Before')])
  const before = await snapshotNow()
  const { sql } = api.deps
  const { tx } = sql
  const happens = [
    () => session.hear(turn, [say('prt_2', 'Meanwhile')]),
    () => session.begin('Meanwhile'),
    () => session.finish(turn),
    () => endSession(sql, session.id, { status: 'dead', endReason: 'deleted' }),
  ]
  const disturbed = (inner: Sql): Sql => ({
    ...inner,
    one: async <T>(text: string, params?: unknown[]) => {
      const row = await inner.one<T>(text, params)
      await happens.shift()?.()
      return row
    },
  })
  sql.tx = (work) => (happens.length === 4 ? tx((inner) => work(disturbed(inner))) : tx(work))
  try {
    const during = await snapshotNow()
    expect(happens.length).toBeLessThan(3)
    expect(during).toEqual(before)
  } finally {
    sql.tx = tx
  }
})

test('what many clients ask for in the same moment is read once: snapshots, and news of the log', async () => {
  const { sql } = api.deps
  const { tx, query } = sql
  const reads = { snapshots: 0, pages: 0 }
  const allAsked = Promise.withResolvers<void>()
  sql.tx = async (work) => {
    reads.snapshots++
    await allAsked.promise
    return tx(work)
  }
  sql.query = (text, params) => {
    if (text.includes('from event')) reads.pages++
    return query(text, params)
  }
  try {
    const streams = await Promise.all(Array.from({ length: 60 }, () => openStream(urlOf('?snapshot=1&follow=1'))))
    await Promise.all(streams.map((stream) => stream.until(({ data }) => data.type === 'ready')))
    await sleep(500)
    allAsked.resolve()
    await Promise.all(streams.map((stream) => stream.until(isSnapshot)))
    expect(reads.snapshots).toBeLessThanOrEqual(3)
    await sleep(500)
    reads.pages = 0
    await session.say(3)
    for (const stream of streams) {
      expect((await stream.until(({ id }) => id === 5)).map(({ id }) => id)).toEqual([3, 4, 5])
      stream.close()
    }
    // Each of 60 readers by itself would read at least once.
    expect(reads.pages).toBeLessThan(30)
  } finally {
    Object.assign(sql, { tx, query })
  }
})

/** Two turns of the real opencode: `node tools/record-turn.ts` records them. */
const recorded = readFileSync(new URL('../test/recorded/opencode.jsonl', import.meta.url), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as JournalEntry)

/** A client that joins now and stays. @returns what it shows at each event, from the first that it gets to the last of the session */
const watch = async (query: string): Promise<Map<number, ClientView>> => {
  const views = new Map<number, ClientView>()
  const state = createClientState(query.includes('snapshot') ? 'snapshot' : 'log')
  for (const frame of await (await openStream(urlOf(query))).rest()) {
    state.apply(frame)
    if (frame.id !== null) views.set(frame.id, state.view())
  }
  return views
}

/** The worker stores a checkpoint, or cannot. */
const checkpoint = async (): Promise<void> => {
  const { sql } = api.deps
  const begun = await beginCheckpoint(sql, session.id, { id: randomUUID(), store: createPostgresCheckpoints(sql) })
  if (begun === null) return
  const again = (): number => 0
  await checkpointFailed(sql, begun.checkpoint, { code: 'store_unavailable', message: 'down', again })
  const next = (await beginCheckpoint(sql, session.id, { id: randomUUID(), store: createPostgresCheckpoints(sql) }))!
  const omitted = [{ path: 'big', reason: 'too_large' as const, bytes: 1 }]
  await checkpointStored(sql, next.checkpoint, { manifest: manifest({ omitted }), bytes: 1, sha256: 'x' })
}

/** What a user does meanwhile with what waits and with what is asked. */
const disturb = async (random: Random, waiting: string[]): Promise<void> => {
  const { sql } = api.deps
  const ids = (turnId: string) => ({ sessionId: session.id, turnId })
  const what = random.below(9)
  if (what === 0 && waiting.length > 0) await deleteQueued(sql, ids(waiting.pop()!))
  if (what === 1 && waiting.length > 0)
    await editQueued(sql, ids(waiting.at(-1)!), () => [{ type: 'text', text: `Better ${random.below(100)}` }])
  if (what === 2 && waiting.length > 1) {
    const next = waiting.pop()!
    await sendNow(sql, ids(next))
    waiting.unshift(next)
  }
  if (what === 3) {
    const running = "select id from turn where session_id = $1 and status = 'running'"
    const turn = await sql.one<{ id: string }>(running, [session.id])
    if (turn !== null) await session.ask(turn.id)
  }
  if (what === 4) {
    const [permission] = await listPermissions(sql, session.id, { status: 'open', limit: 1 })
    if (permission !== undefined) await decidePermission(sql, session.id, { id: permission.id, decision: 'allow' })
  }
  if (what === 6) await checkpoint()
  if (what === 5) await changeLimits(sql, session.id, { max_turns: 1_000 + random.below(2) })
}

/** Plays the recorded turns into the log as the worker does, in batches of any size, with messages that wait and change meanwhile. */
const play = async (random: Random, onStep: () => void): Promise<void> => {
  const { sql } = api.deps
  const begun = new Map<string, string>()
  const waiting: string[] = []
  for (let next = 0; next < recorded.length;) {
    const entry = recorded[next]!
    if (entry.type === 'turn_started') {
      const turn = waiting.shift() ?? (await session.begin(`as ${entry.turn_id}`))
      await startTurn(sql, turn, session.sandbox.id)
      begun.set(entry.turn_id, turn)
      next++
    } else if (entry.type === 'turn_finished') {
      await session.finish(begun.get(entry.turn_id)!, entry.result.reply)
      next++
    } else {
      const batch = recorded.slice(next, next + random.between(1, 9))
      const others = batch.findIndex(({ type }) => type !== 'harness')
      const own = (others === -1 ? batch : batch.slice(0, others)).filter((one) => one.type === 'harness')
      for (const { turn_id, event } of own) if (turn_id === null) await session.hear(null, [event])
      const events = own.filter(({ turn_id }) => turn_id !== null)
      if (events.length > 0)
        await session.hear(
          begun.get(events[0]!.turn_id!)!,
          events.map(({ event }) => event),
        )
      next += own.length
    }
    if (random.below(12) === 0) waiting.push(await session.begin('One more'))
    await disturb(random, waiting)
    onStep()
    await sleep(random.below(20))
  }
  const cutOff = waiting.shift() ?? (await session.begin('The last'))
  await startTurn(sql, cutOff, session.sandbox.id)
  await session.hear(cutOff, [assistant, say('prt_9', 'I was about to')])
  onStep()
  const lost = { code: 'sandbox_lost', message: 'gone' }
  if (random.below(2) === 0) await endTurn(sql, session.id, { turnId: cutOff, status: 'interrupted', reply: null, error: lost, usage: null }) // prettier-ignore
  onStep()
  await endSession(sql, session.id, { status: 'dead', endReason: 'deleted' })
}

test.each([1, 2, 3])(
  'whoever joins a recorded turn at any moment shows, then and ever after, what shows who has the whole log (%i)',
  async (seed) => {
    const random = createRandom(seed)
    const whole = watch('?follow=1')
    const joined: Promise<Map<number, ClientView>>[] = []
    await play(random, () => {
      if (random.below(3) === 0) joined.push(watch('?snapshot=1&follow=1'))
    })
    const expected = await whole
    const last = [...expected.keys()].at(-1)
    expect(last).toBe(await session.lastSeq())
    const starts = new Set<number>()
    for (const views of await Promise.all([...joined, watch('?snapshot=1')])) {
      starts.add([...views.keys()][0]!)
      for (const [seq, view] of views) expect(view).toEqual(expected.get(seq))
      expect([...views.keys()].at(-1)).toBe(last)
    }
    expect(starts.size).toBeGreaterThan(8)
    expect(expected.get(last!)).toMatchObject({
      session: { status: 'dead' },
      running: null,
      queued: [],
      permissions: [],
    })
  },
  120_000,
)
