import { afterAll, afterEach, beforeAll, beforeEach } from '@jest/globals'
import type { Sql } from '../db/sql.ts'
import { conversationIn, startCheckpointSandbox } from './checkpoint-sandbox.ts'
import type { CheckpointSandbox } from './checkpoint-sandbox.ts'
import type { Conversation } from './conversation.ts'
import { createTestDatabase } from './database.ts'
import type { TestDatabase } from './database.ts'

export type CheckpointWorld = { sql: Sql; sandbox: CheckpointSandbox; session: Conversation }

/**
 * A database for the tests of a file, and for each of them a session of its own that is ready in a sandbox of its own.
 * @param prepare gives them to the test, and makes what it finds in them
 */
export const withCheckpoints = (prepare: (world: CheckpointWorld) => Promise<void> | void): void => {
  let database: TestDatabase | undefined
  let sandbox: CheckpointSandbox | undefined
  beforeAll(async () => {
    database = await createTestDatabase()
  })
  beforeEach(async () => {
    const { sql } = database!.db
    sandbox = await startCheckpointSandbox()
    await prepare({ sql, sandbox, session: await conversationIn(sql, sandbox) })
  })
  afterEach(async () => sandbox?.[Symbol.asyncDispose]())
  afterAll(async () => database?.[Symbol.asyncDispose]())
}
