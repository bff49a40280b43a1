import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from '@jest/globals'
import { MockActivityEnvironment } from '@temporalio/testing'
import pLimit from 'p-limit'
import { endSession } from '../db/session-end.ts'
import type { Sql } from '../db/sql.ts'
import {
  checkpointDeps,
  conversationIn,
  exchange,
  moveWithin,
  runActivity,
  storeCheckpoint,
} from '../test/checkpoint-sandbox.ts'
import type { CheckpointSandbox } from '../test/checkpoint-sandbox.ts'
import type { Conversation } from '../test/conversation.ts'
import { until } from '../test/until.ts'
import { withCheckpoints } from '../test/with-checkpoints.ts'
import { bindActivities } from './bind.ts'

let sql: Sql
let sandbox: CheckpointSandbox
/** It has a checkpoint, has lost its sandbox, and has another one. */
let session: Conversation

const lose = async (conversation: Conversation): Promise<Conversation> => {
  await exchange(conversation, 'hello')
  await storeCheckpoint(sql, conversation.id)
  await moveWithin(sql, conversation, sandbox)
  return conversation
}

withCheckpoints(async (world) => {
  ;({ sql, sandbox, session } = world)
  await lose(session)
})

const lost = async (): Promise<Conversation> => lose(await conversationIn(sql, sandbox))

const restoredOf = async (conversation: Conversation): Promise<unknown[]> =>
  (await conversation.log()).flatMap(({ type, data }) => (type === 'sandbox_moved' ? [data['restored']] : []))

/** A worker whose only place is taken until `free` is called. */
const busyWorker = (timeoutMs?: number) => {
  const places = pLimit(1)
  const { promise, resolve: free } = Promise.withResolvers<void>()
  void places(() => promise)
  const waiting = () => until('a session waits', 20_000, () => places.pendingCount > 0)
  const more = timeoutMs === undefined ? {} : { timeoutMs }
  return { free, waiting, ...bindActivities(checkpointDeps(sql), { places, ...more }) }
}

test('so many sessions get their checkpoint back at once; others, and checkpoints that are taken, wait for none of them', async () => {
  const { bindSandbox } = bindActivities(checkpointDeps(sql), { places: pLimit(2) })
  const { promise: hold, resolve: release } = Promise.withResolvers<void>()
  sandbox.holdRestore = hold
  const sessions = [session, await lost(), await lost(), await lost()]
  const binding = sessions.map(({ id }) => runActivity(() => bindSandbox(id)))
  await until('two are restored', 20_000, () => sandbox.restoring.now === 2)

  const fresh = await conversationIn(sql, sandbox)
  await moveWithin(sql, fresh, sandbox)
  expect(await runActivity(() => bindSandbox(fresh.id))).toBe('ready')
  const talking = await conversationIn(sql, sandbox)
  await exchange(talking, 'hello')
  expect(await storeCheckpoint(sql, talking.id)).toBe('stored')

  expect(sandbox.restored.size).toBe(0)
  release()
  expect(await Promise.all(binding)).toEqual(['ready', 'ready', 'ready', 'ready'])
  expect([sandbox.restored.size, sandbox.restoring.most]).toEqual([4, 2])
})

test('the wait for a place takes nothing of the time that a restore has, and the server hears meanwhile that it is alive', async () => {
  const { bindSandbox, free } = busyWorker(3_000)
  const environment = new MockActivityEnvironment()
  let beats = 0
  environment.on('heartbeat', () => beats++)
  const binding = environment.run(() => bindSandbox(session.id))
  await sleep(3_500)
  expect(sandbox.restored.size).toBe(0)
  expect(beats).toBeGreaterThan(0)
  free()
  expect(await binding).toBe('ready')
  expect(await restoredOf(session)).toMatchObject([{ conversation: true, files: 3 }])
})

test('a session that ends while it waits for a place gets nothing any more', async () => {
  const { bindSandbox, free, waiting } = busyWorker()
  const binding = runActivity(() => bindSandbox(session.id))
  await waiting()
  await endSession(sql, session.id, { status: 'dead', endReason: 'deleted' })
  free()
  expect(await binding).toBe('superseded')
  expect(sandbox.restored.size).toBe(0)
})

test('what was cancelled while it waited, because another worker does it, does nothing', async () => {
  const { bindSandbox, free, waiting } = busyWorker()
  const environment = new MockActivityEnvironment()
  const binding = environment.run(() => bindSandbox(session.id))
  await waiting()
  environment.cancel('TIMED_OUT')
  free()
  await expect(binding).rejects.toMatchObject({ name: 'CancelledFailure' })
  expect(sandbox.restored.size).toBe(0)
})
