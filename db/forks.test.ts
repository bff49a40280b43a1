import { expect, test } from '@jest/globals'
import { newSession } from '../test/builders.ts'
import { exchange, storeCheckpoint } from '../test/checkpoint-sandbox.ts'
import type { Conversation } from '../test/conversation.ts'
import { until } from '../test/until.ts'
import { withCheckpoints } from '../test/with-checkpoints.ts'
import { expireCheckpoints, restorableCheckpoints } from './checkpoints.ts'
import type { SessionRow } from './entities/session.ts'
import { forkSession } from './forks.ts'
import { endSession } from './session-end.ts'
import { getSession } from './sessions.ts'
import type { Sql } from './sql.ts'

let sql: Sql
/** It has a checkpoint. */
let session: Conversation

withCheckpoints(async (world) => {
  ;({ sql, session } = world)
  await exchange(session, 'hello')
  await storeCheckpoint(sql, session.id)
})

const fork = async (sourceId: string): Promise<SessionRow> => {
  const make = ({ agent_id }: SessionRow) => newSession(agent_id)
  const forked = await forkSession(sql, { sourceId, from: {}, idempotencyKey: null, bodyHash: null, make })
  return forked.session
}
const end = (id: string) => endSession(sql, id, { status: 'dead', endReason: 'deleted' })
/** As the janitor does it, long after all that has ended. */
const expire = () => expireCheckpoints(sql, { retentionMs: -1, abandonedMs: 3_600_000 })

/** Until the work is over, or so many transactions of this database wait for another one. */
const overOrWaiting = async (work: Promise<unknown>, transactions: number): Promise<void> => {
  const locks =
    "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and state = 'active'"
  let over = false
  const end = () => void (over = true)
  work.then(end, end)
  await until('it is over or waits', 20_000, async () => over || (await sql.query(locks)).length >= transactions)
}

/** What is begun meanwhile finds forks in the middle: their checkpoint is chosen, their turns are not copied. */
const amidForks = (work: () => Promise<void>): Promise<void> =>
  sql.tx(async (tx) => {
    await tx.query('lock table turn in access exclusive mode')
    await work()
  })

test('a checkpoint stays for a fork that is being made of an ended fork, which has none of its own', async () => {
  const first = await fork(session.id)
  await end(session.id)
  await end(first.id)
  let made: Promise<SessionRow> | undefined
  let expired: Promise<number> | undefined
  await amidForks(async () => {
    made = fork(first.id)
    await overOrWaiting(made, 1)
    expired = expire()
    await overOrWaiting(expired, 2)
  })
  const second = await made!
  expect(await expired).toBe(0)
  const restorable = await restorableCheckpoints(sql, (await getSession(sql, second.id))!)
  expect(restorable).toMatchObject([{ id: second.forked_from!.checkpoint_id, session_id: session.id }])
})

test('one that is given up first is none any more for the fork of a fork', async () => {
  const first = await fork(session.id)
  await end(session.id)
  await end(first.id)
  let made: Promise<unknown> | undefined
  await sql.tx(async (tx) => {
    await tx.query('select from session where id = $1 for no key update', [session.id])
    made = fork(first.id).catch((error: unknown) => error)
    await overOrWaiting(made, 1)
    await tx.query("update checkpoint set state = 'deleted' where session_id = $1", [session.id])
  })
  expect(await made).toMatchObject({ code: 'conflict', reason: 'no_checkpoint' })
})
