import { expect, test } from '@jest/globals'
import type { Sql } from '../db/sql.ts'
import { checkpointDeps } from '../test/checkpoint-sandbox.ts'
import type { CheckpointSandbox } from '../test/checkpoint-sandbox.ts'
import type { Conversation } from '../test/conversation.ts'
import { withCheckpoints } from '../test/with-checkpoints.ts'
import { expire } from './session.ts'

let sql: Sql
let sandbox: CheckpointSandbox
let session: Conversation
withCheckpoints((world) => void ({ sql, sandbox, session } = world))

const idle = () =>
  sql.query("update session set last_activity_at = now() - interval '1 hour' where id = $1", [session.id])

test('an idle session ends; one whose harness has had to do with a model a moment ago is not idle', async () => {
  expect(await expire(checkpointDeps(sql), session.id)).toBe(false)
  await idle()
  sandbox.modelIdleMs = 1_000
  expect(await expire(checkpointDeps(sql), session.id)).toBe(false)
  await idle()
  sandbox.modelIdleMs = 30 * 60_000
  expect(await expire(checkpointDeps(sql), session.id)).toBe(true)
  expect(await session.session()).toMatchObject({ status: 'dead', end_reason: 'idle_timeout' })
})

test('a session that is too old ends, whatever its harness does, which is not asked', async () => {
  await idle()
  const { last_activity_at } = await session.session()
  await sql.query('update session set max_age_at = now() where id = $1', [session.id])
  sandbox.modelIdleMs = 0
  expect(await expire(checkpointDeps(sql), session.id)).toBe(true)
  expect(await session.session()).toMatchObject({ status: 'dead', end_reason: 'max_lifetime', last_activity_at })
})
