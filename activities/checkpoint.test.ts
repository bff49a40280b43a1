import { randomBytes } from 'node:crypto'
import { expect, test } from '@jest/globals'
import { createPostgresCheckpoints } from '../db/checkpoint-archive.ts'
import { beginCheckpoint, checkpointStored, listCheckpoints } from '../db/checkpoints.ts'
import { sandboxFailed } from '../db/sandboxes.ts'
import { endSession } from '../db/session-end.ts'
import { loadSessionPlan } from '../db/sessions.ts'
import type { Sql } from '../db/sql.ts'
import { checkpointChunkBytes } from '../domain/limits.ts'
import { checkpointDeps, exchange, manifest, sha256, storeCheckpoint, switchable } from '../test/checkpoint-sandbox.ts'
import type { CheckpointSandbox } from '../test/checkpoint-sandbox.ts'
import type { Conversation } from '../test/conversation.ts'
import { withCheckpoints } from '../test/with-checkpoints.ts'
import type { ActivityDeps } from './deps.ts'

let sandbox: CheckpointSandbox
let sql: Sql
let session: Conversation
withCheckpoints((world) => void ({ sql, sandbox, session } = world))

const store = (deps?: ActivityDeps) => storeCheckpoint(sql, session.id, deps)

const told = async (): Promise<[string, Record<string, unknown>][]> =>
  (await session.log()).flatMap(({ type, data }) => (type.startsWith('checkpoint.') ? [[type, data]] : []))

const chunksOf = (id: string): Promise<{ bytes: number }[]> =>
  sql.query('select octet_length(data) bytes from checkpoint_chunk where checkpoint_id = $1 order by seq', [id])

/** Milliseconds until it is tried again; null: none is due. */
const dueIn = async (): Promise<number | null> => {
  const at = (await loadSessionPlan(sql, session.id))?.checkpoint_at
  return at == null ? null : Math.max(0, at.getTime() - Date.now())
}

test('behind a turn the archive is stored whole, in pieces, and the log says what it holds', async () => {
  sandbox.answers.archive = randomBytes(2.5 * checkpointChunkBytes)
  expect(await dueIn()).toBe(null)
  const turn = await exchange(session, 'hello')
  expect(await dueIn()).toBe(0)
  expect(await store()).toBe('stored')

  const [checkpoint] = await listCheckpoints(sql, session.id)
  const { archive } = sandbox.answers
  expect(checkpoint).toMatchObject({
    turn_id: turn,
    bytes: archive.length,
    sha256: sha256(archive),
    manifest: manifest(),
  })
  expect((await chunksOf(checkpoint!.id)).map(({ bytes }) => bytes)).toEqual([2 ** 20, 2 ** 20, 2 ** 19])
  const data = { checkpoint_id: checkpoint!.id, turn_id: turn, bytes: archive.length, files: 3, omitted: 0 }
  expect(await told()).toEqual([['checkpoint.stored', data]])
  expect(await dueIn()).toBe(null)
  expect(await store()).toBe('none')
})

test('what a checkpoint does not hold is told beside it', async () => {
  const omitted = [{ path: 'model.bin', reason: 'too_large' as const, bytes: 1e9 }]
  sandbox.answers.manifest = manifest({ omitted, omitted_more: 2 })
  await exchange(session, 'hello')
  await store()
  expect(await told()).toMatchObject([
    ['checkpoint.stored', { omitted: 3 }],
    ['checkpoint.incomplete', { omitted, omitted_more: 2, has_conversation: true }],
  ])
})

test('none is taken while a turn runs, nor of a session that has ended', async () => {
  const { id } = await session.send('hello')
  expect(await store()).toBe('none')
  await session.finish(id)
  await endSession(sql, session.id, { status: 'dead', endReason: 'deleted' })
  expect(await store()).toBe('none')
  expect(sandbox.asked).toBe(0)
})

test('a sandbox that is busy already is asked again a moment later, without a word in the log', async () => {
  await exchange(session, 'hello')
  sandbox.answers.refuse = { status: 409, code: 'turn_running' }
  expect(await store()).toBe('none')
  expect(await dueIn()).toBeGreaterThan(0)
  sandbox.answers.refuse = null
  expect(await store()).toBe('stored')
  expect(await told()).toHaveLength(1)
})

test.each([
  ['a terminal', { status: 409, code: 'no_conversation' }],
  ['an older supervisor', { status: 404, code: 'not_found' }],
])('of %s, which has none to give, it is not asked for again behind that turn', async (_, refuse) => {
  sandbox.answers.refuse = refuse
  await exchange(session, 'hello')
  expect(await store()).toBe('none')
  expect(await dueIn()).toBe(null)
  await exchange(session, 'again')
  expect(await dueIn()).not.toBe(null)
  expect(await told()).toEqual([])
})

test('a store that is down is told once, tried later and later, and forgotten when it is back', async () => {
  const down = switchable(createPostgresCheckpoints(sql))
  const deps = checkpointDeps(sql, down)
  down.up = false
  const turn = await exchange(session, 'hello')
  const waits: number[] = []
  for (let i = 0; i < 3; i++) {
    expect(await store(deps)).toBe('failed')
    waits.push((await dueIn())!)
  }
  expect(waits[1]).toBeGreaterThan(waits[0]!)
  expect(waits[2]).toBeGreaterThan(waits[1]!)
  expect(await told()).toMatchObject([['checkpoint.failed', { turn_id: turn, code: 'store_unavailable' }]])
  // Messages go on.
  await exchange(session, 'again')
  down.up = true
  expect(await store(deps)).toBe('stored')
  down.up = false
  await exchange(session, 'and again')
  expect(await store(deps)).toBe('failed')
  expect((await told()).map(([type]) => type)).toEqual(['checkpoint.failed', 'checkpoint.stored', 'checkpoint.failed'])
  expect(
    await sql.query("select from checkpoint where session_id = $1 and state <> 'stored'", [session.id]),
  ).toHaveLength(1)
  down.up = true
  expect(await store(deps)).toBe('stored')
  // What was given up is removed as soon as it can be.
  expect(await sql.query("select from checkpoint where session_id = $1 and state <> 'stored'", [session.id])).toEqual(
    [],
  )
})

test('an archive that breaks off is none', async () => {
  sandbox.answers.archive = randomBytes(3 * checkpointChunkBytes)
  sandbox.answers.cutAt = 2 * checkpointChunkBytes
  await exchange(session, 'hello')
  expect(await store()).toBe('failed')
  expect(await listCheckpoints(sql, session.id)).toEqual([])
  expect(
    await sql.query('select from checkpoint_chunk k join checkpoint c on c.id = checkpoint_id where session_id = $1', [
      session.id,
    ]),
  ).toEqual([])
  sandbox.answers.cutAt = null
  expect(await store()).toBe('stored')
})

test('an archive above the limit is refused, told, and not asked for again behind that turn', async () => {
  sandbox.answers.archive = randomBytes(1_001)
  await exchange(session, 'hello')
  expect(await store(checkpointDeps(sql, undefined, 1_000))).toBe('failed')
  expect(await told()).toMatchObject([['checkpoint.failed', { code: 'too_large' }]])
  expect(await dueIn()).toBe(null)
  // The sandbox itself may find that nothing of it fits.
  sandbox.answers.refuse = { status: 413, code: 'too_large' }
  await exchange(session, 'again')
  expect(await store()).toBe('failed')
  expect(await told()).toMatchObject([{}, ['checkpoint.failed', { code: 'too_large' }]])
  expect(await dueIn()).toBe(null)
})

test('the two newest are kept, and one that could not be restored', async () => {
  const turns: string[] = []
  for (const text of ['one', 'two', 'three', 'four']) {
    turns.push(await exchange(session, text))
    await store()
    if (text === 'one') await sql.query('update checkpoint set pinned = true where session_id = $1', [session.id])
  }
  const kept = await listCheckpoints(sql, session.id)
  expect(kept.map(({ turn_id }) => turn_id)).toEqual([turns[3], turns[2], turns[0]])
  expect(await sql.query('select from checkpoint where session_id = $1', [session.id])).toHaveLength(3)
  for (const { id } of kept) expect(await chunksOf(id)).toHaveLength(1)
})

test('of two workers that store the same checkpoint one has it, and the other leaves nothing', async () => {
  const turn = await exchange(session, 'hello')
  const slow = (await beginCheckpoint(sql, session.id, {
    id: crypto.randomUUID(),
    store: createPostgresCheckpoints(sql),
  }))!
  expect(await store()).toBe('stored')
  const archived = { manifest: manifest(), bytes: 1, sha256: 'x' }
  expect(await checkpointStored(sql, slow.checkpoint, archived)).toBe(null)
  expect((await listCheckpoints(sql, session.id)).map(({ turn_id }) => turn_id)).toEqual([turn])
  expect((await told()).map(([type]) => type)).toEqual(['checkpoint.stored'])
})

test('a sandbox that is gone is written down as lost, which is not a failure of the checkpoint', async () => {
  await exchange(session, 'hello')
  await sandbox[Symbol.asyncDispose]()
  const deps = checkpointDeps(sql)
  expect(await store({ ...deps, driver: { ...deps.driver, inspect: async () => ({ exists: false }) } })).toBe('none')
  expect(await told()).toEqual([])
  expect(await sql.query('select state from sandbox where id = $1', [session.sandbox.id])).toEqual([
    { state: 'failed' },
  ])
  expect(await sandboxFailed(sql, session.sandbox.id, { code: 'sandbox_lost', message: '', evidence: null })).toBe(null)
})
