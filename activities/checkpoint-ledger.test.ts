import { randomUUID } from 'node:crypto'
import { expect, test } from '@jest/globals'
import { createPostgresCheckpoints } from '../db/checkpoint-archive.ts'
import { beginCheckpoint, listCheckpoints } from '../db/checkpoints.ts'
import { forkSession } from '../db/forks.ts'
import { endSession } from '../db/session-end.ts'
import type { Sql } from '../db/sql.ts'
import type { CheckpointStore, StoredArchive } from '../domain/checkpoint.ts'
import { newSession } from '../test/builders.ts'
import { checkpointDeps, exchange, storeCheckpoint } from '../test/checkpoint-sandbox.ts'
import type { Conversation } from '../test/conversation.ts'
import { withCheckpoints } from '../test/with-checkpoints.ts'
import { compareCheckpoints } from './checkpoint-ledger.ts'

let sql: Sql
/** It has the only checkpoint that there is. */
let session: Conversation

withCheckpoints(async (world) => {
  ;({ sql, session } = world)
  await sql.query("update session set status = 'dead', ended_at = now() where id <> $1", [session.id])
  await sql.query('delete from checkpoint')
  await exchange(session, 'hello')
  await storeCheckpoint(sql, session.id)
})

const compare = (store?: CheckpointStore) => compareCheckpoints(checkpointDeps(sql, store))
const nothing = { checkpoints_expired: 0, checkpoints_lost: 0, archives_removed: 0 }

/** Checkpoints and sessions are older by that much. */
const age = (by: string) =>
  sql.query(
    `with c as (update checkpoint set created_at = created_at - $1::interval, stored_at = stored_at - $1::interval)
     update session set ended_at = ended_at - $1::interval`,
    [by],
  )

const rows = () => sql.query<{ id: string }>('select id from checkpoint')
const chunks = () => sql.query('select from checkpoint_chunk')

test('checkpoints outlive their session for the time that is set, and no longer', async () => {
  await endSession(sql, session.id, { status: 'dead', endReason: 'deleted' })
  expect(await compare()).toEqual(nothing)
  await age('59 minutes')
  expect(await compare()).toEqual(nothing)
  expect(await rows()).toHaveLength(1)
  await age('2 minutes')
  expect(await compare()).toEqual({ ...nothing, checkpoints_expired: 1, archives_removed: 1 })
  expect([await rows(), await chunks()]).toEqual([[], []])
})

test('one that a fork has still to begin with is kept, whatever becomes of its session', async () => {
  const { agent_id } = await session.session()
  const key = { idempotencyKey: null, bodyHash: null }
  const asked = { sourceId: session.id, from: {}, ...key, make: () => newSession(agent_id) }
  const fork = await forkSession(sql, asked)
  await endSession(sql, session.id, { status: 'dead', endReason: 'deleted' })
  await age('2 hours')
  expect(await compare()).toEqual(nothing)
  expect(await rows()).toHaveLength(1)
  await endSession(sql, fork.session.id, { status: 'dead', endReason: 'deleted' })
  expect(await compare()).toMatchObject({ checkpoints_expired: 1 })
})

test('one whose worker died while it stored it is given up', async () => {
  await exchange(session, 'again')
  const begun = (await beginCheckpoint(sql, session.id, { id: randomUUID(), store: createPostgresCheckpoints(sql) }))!
  await sql.query('insert into checkpoint_chunk (checkpoint_id, seq, data) values ($1, 0, $2)', [
    begun.checkpoint.id,
    Buffer.from('half'),
  ])
  expect(await compare()).toEqual(nothing)
  await age('1 hour')
  expect(await compare()).toEqual({ ...nothing, checkpoints_expired: 1, archives_removed: 1 })
  expect((await rows()).map(({ id }) => id)).toEqual((await listCheckpoints(sql, session.id)).map(({ id }) => id))
  expect(await chunks()).toHaveLength(1)
})

test('a row whose archive is gone, or is of another size, is none', async () => {
  await sql.query('delete from checkpoint_chunk')
  expect(await compare()).toEqual(nothing)
  await age('11 minutes')
  expect(await compare()).toMatchObject({ checkpoints_lost: 1 })
  expect(await rows()).toEqual([])
})

test('an archive without a row is removed, once it is old enough to have one', async () => {
  const kept = new Map<string, StoredArchive>()
  const at = (minutes: number): Date => new Date(Date.now() - minutes * 60_000)
  for (const minutes of [1, 11]) kept.set(randomUUID(), { id: '', bytes: 1, at: at(minutes) })
  const store: CheckpointStore = {
    ...createPostgresCheckpoints(sql),
    kind: 's3',
    list: async (prefix) => [...kept].flatMap(([id, one]) => (id.startsWith(prefix) ? [{ ...one, id }] : [])),
    remove: async (id) => void kept.delete(id),
  }
  expect(await compare(store)).toEqual({ ...nothing, archives_removed: 1 })
  expect([...kept.values()].map((one) => Date.now() - one.at.getTime() < 5 * 60_000)).toEqual([true])
  expect(await rows()).toHaveLength(1)
})

test('what is missing from one bucket is not lost when it was stored in another: it is there again when the setting is put back', async () => {
  const empty = { list: async () => [], remove: async () => {} }
  const store = (place: string): CheckpointStore => ({ ...createPostgresCheckpoints(sql), ...empty, kind: 's3', place })
  await sql.query("update checkpoint set store = 's3', place = 'right/lap'")
  await age('11 minutes')
  expect(await compare(store('wrong/lap'))).toEqual(nothing)
  expect(await rows()).toHaveLength(1)
  await sql.query("update checkpoint set state = 'deleted'")
  expect(await compare(store('wrong/lap'))).toEqual(nothing)
  expect(await compare(store('right/lap'))).toEqual({ ...nothing, archives_removed: 1 })
})
