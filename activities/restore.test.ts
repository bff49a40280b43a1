import { randomBytes, randomUUID } from 'node:crypto'
import { expect, test } from '@jest/globals'
import { createPostgresCheckpoints } from '../db/checkpoint-archive.ts'
import { listCheckpoints } from '../db/checkpoints.ts'
import { getSandbox } from '../db/sandboxes.ts'
import { getSession } from '../db/sessions.ts'
import type { Sql } from '../db/sql.ts'
import type { CheckpointStore } from '../domain/checkpoint.ts'
import { checkpointChunkBytes, restoreLossesMax } from '../domain/limits.ts'
import type { Restoring } from '../sandbox/bind.ts'
import { checkpointDeps, exchange, moveWithin, storeCheckpoint, switchable } from '../test/checkpoint-sandbox.ts'
import type { CheckpointSandbox } from '../test/checkpoint-sandbox.ts'
import type { Conversation } from '../test/conversation.ts'
import { withCheckpoints } from '../test/with-checkpoints.ts'
import { restoreCheckpoint } from './restore.ts'

let sandbox: CheckpointSandbox
let sql: Sql
/** It has two checkpoints, has lost its sandbox, and has another one. */
let session: Conversation
/** The archives that were stored, and their checkpoints, the oldest first. */
let archives: Buffer[]
let ids: string[]

withCheckpoints(async (world) => {
  ;({ sql, sandbox, session } = world)
  archives = []
  for (const text of ['one', 'two']) {
    sandbox.answers.archive = randomBytes(checkpointChunkBytes * 1.5)
    archives.push(sandbox.answers.archive)
    await exchange(session, text)
    await storeCheckpoint(sql, session.id)
  }
  ids = (await listCheckpoints(sql, session.id)).map(({ id }) => id).toReversed()
  await moveWithin(sql, session, sandbox)
})

const restore = async (
  store?: CheckpointStore,
  signal: AbortSignal = AbortSignal.timeout(20_000),
): Promise<Restoring | null> => {
  const row = (await getSession(sql, session.id))!
  const into = (await getSandbox(sql, row.sandbox_id!))!
  return restoreCheckpoint(checkpointDeps(sql, store), { session: row, sandbox: into, signal })
}

const pinned = async (): Promise<string[]> => {
  const rows = await sql.query<{ id: string }>('select id from checkpoint where session_id = $1 and pinned', [
    session.id,
  ])
  return rows.map(({ id }) => id)
}

const damage = (id: string) =>
  sql.query(
    `update checkpoint_chunk set data = set_byte(data, 7, 255 - get_byte(data, 7)) where checkpoint_id = $1 and seq = 1`,
    [id],
  )

test('the newest archive comes into the sandbox as it was, however often', async () => {
  for (let i = 0; i < 2; i++) {
    const restoring = await restore()
    expect(restoring).toMatchObject({ checkpoint: { id: ids[1] } })
  }
  expect([...sandbox.restored.keys()]).toEqual([ids[1]])
  expect(sandbox.restored.get(ids[1]!)?.equals(archives[1]!)).toBe(true)
})

test('a damaged archive reaches no sandbox: the one before is restored, which is told, and it is kept for a fork', async () => {
  await damage(ids[1]!)
  expect(await restore()).toMatchObject({
    checkpoint: { id: ids[0] },
    failure: { checkpoint_id: ids[1], error: 'its archive is damaged' },
  })
  expect(await pinned()).toEqual([ids[1]])
  expect([...sandbox.restored.keys()]).toEqual([ids[0]])
  expect(sandbox.restored.get(ids[0]!)?.equals(archives[0]!)).toBe(true)
})

test('with all of them damaged or missing the session goes on without, is told why, and the newest is kept for a fork', async () => {
  await damage(ids[1]!)
  await sql.query('delete from checkpoint_chunk where checkpoint_id = $1', [ids[0]])
  const failure = { checkpoint_id: ids[1], error: 'its archive is damaged' }
  expect(await restore()).toMatchObject({ failure })
  expect(sandbox.restored.size).toBe(0)
  expect(await pinned()).toEqual([ids[1]])
})

test('a store that is down is asked again, and waited for no longer than the time allowed', async () => {
  const down = switchable(createPostgresCheckpoints(sql))
  down.up = false
  expect(await restore(down, AbortSignal.timeout(2_500))).toMatchObject({
    failure: { error: expect.stringContaining('the store is down') },
  })
  const back = switchable(createPostgresCheckpoints(sql))
  back.up = false
  const restoring = restore(back)
  setTimeout(() => (back.up = true), 1_500)
  expect(await restoring).toMatchObject({ checkpoint: { id: ids[1] } })
})

test('a restore that its worker breaks off is left to another one, which finds everything as it was', async () => {
  const down = switchable(createPostgresCheckpoints(sql))
  down.up = false
  const worker = new AbortController()
  const restoring = restore(down, worker.signal)
  setTimeout(() => worker.abort(new Error('the worker ends')), 500)
  await expect(restoring).rejects.toThrow('the worker ends')
  expect(await pinned()).toEqual([])
  expect(await restore()).toMatchObject({ checkpoint: { id: ids[1] } })
})

test('a fork whose checkpoint is gone before it has begun is told so', async () => {
  const gone = randomUUID()
  const forked_from = { session_id: session.id, checkpoint_id: gone, turn_id: randomUUID() }
  const fork = { ...(await getSession(sql, session.id))!, id: randomUUID(), forked_from }
  const into = (await getSandbox(sql, fork.sandbox_id!))!
  const signal = AbortSignal.timeout(20_000)
  const error = expect.stringContaining('not there any more')
  expect(await restoreCheckpoint(checkpointDeps(sql), { session: fork, sandbox: into, signal })).toMatchObject({
    failure: { checkpoint_id: gone, error },
  })
})

test('a sandbox that refuses the archive gets none, and one that is bound already keeps what it has', async () => {
  sandbox.refuseRestore = { status: 422, code: 'invalid' }
  expect(await restore()).toMatchObject({ failure: { checkpoint_id: ids[1] } })
  sandbox.refuseRestore = { status: 409, code: 'bound' }
  expect(await restore()).toMatchObject({ checkpoint: { id: ids[1] } })
})

test('what a sandbox fails at is tried again, and then the one before', async () => {
  sandbox.refuseRestore = { status: 500, code: 'internal' }
  setTimeout(() => (sandbox.refuseRestore = null), 500)
  expect(await restore()).toEqual({ checkpoint: expect.objectContaining({ id: ids[1] }) })
  expect(await pinned()).toEqual([])
  sandbox.refuseRestore = { status: 500, code: 'internal' }
  expect(await restore()).toMatchObject({ failure: { checkpoint_id: ids[1], error: expect.stringContaining('500') } })
})

test('a sandbox that does not answer is the caller’s to judge', async () => {
  await sandbox[Symbol.asyncDispose]()
  await expect(restore()).rejects.toThrow(/PUT|checkpoint/)
})

test('a checkpoint of which sandboxes die is left out', async () => {
  await sql.query('update session set attempt = attempt + $2::int where id = $1', [session.id, restoreLossesMax])
  expect(await restore()).toMatchObject({ failure: { error: expect.stringContaining('sandboxes were lost') } })
  expect(sandbox.restored.size).toBe(0)
})
