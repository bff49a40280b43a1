import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { buildConversation } from '../test/conversation.ts'
import type { Conversation } from '../test/conversation.ts'
import { createTestDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { requestRestart } from './restart.ts'
import { getSandbox } from './sandboxes.ts'
import { sessionReady } from './sessions.ts'
import type { Sql } from './sql.ts'

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

const stateOf = async (sandboxId: string) => (await getSandbox(sql, sandboxId))?.state

test('a restart gives up the sandbox; asked for again on the way to the next one it leaves that alone, until the session is in it', async () => {
  await requestRestart(sql, talk.id)
  expect(await stateOf(talk.sandbox.id)).toBe('failed')
  const next = await talk.move()
  await requestRestart(sql, talk.id)
  await requestRestart(sql, talk.id)
  expect([await stateOf(next.id), (await talk.session()).attempt]).toEqual(['claimed', 2])
  await sessionReady(sql, { sessionId: talk.id, attempt: 2, harnessSessionId: 'ses', phases: {} })
  await requestRestart(sql, talk.id)
  expect(await stateOf(next.id)).toBe('failed')
})
