import { createReadStream, createWriteStream } from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { setImmediate as turnOver } from 'node:timers/promises'
import { pipeline } from 'node:stream/promises'
import { DatabaseSync, type SQLInputValue } from 'node:sqlite'

/**
 * opencode's own database, which has no way out or in over its API: a conversation is copied row by row, into the database of an opencode that runs. It reads
 * what it needs of a conversation for each request.
 */

type Row = Record<string, SQLInputValue>
type Line = { table: string; row: Row }

/** Where the project of a workspace is; what a conversation of another sandbox becomes a part of. */
export type Project = { project_id: string; directory: string }

const SAVED = 'session.jsonl'
/** Another process may be writing: opencode itself, for milliseconds. */
const busyTimeoutMs = 2_000
/** Rows read or written without a pause. */
const rowsAtOnce = 200

/** In an order in which a row finds what it belongs to; each with the column that names the conversation. Credentials and shares are in others. */
const TABLES: Record<string, string> = {
  session: 'id',
  message: 'session_id',
  part: 'session_id',
  todo: 'session_id',
  session_message: 'session_id',
  session_input: 'session_id',
  session_context_epoch: 'session_id',
  event_sequence: 'aggregate_id',
}

const openStore = (home: string): DatabaseSync =>
  new DatabaseSync(path.join(home, '.local', 'share', 'opencode', 'opencode.db'), { timeout: busyTimeoutMs })

/** With those of its subagents, parents first. */
const FAMILY = `WITH RECURSIVE family(id, depth) AS (
  SELECT id, 0 FROM session WHERE id = ?
  UNION ALL SELECT session.id, depth + 1 FROM session JOIN family ON session.parent_id = family.id
) SELECT id FROM family ORDER BY depth, id`

async function* linesOf(store: DatabaseSync, conversation: string): AsyncGenerator<string> {
  const family = store.prepare(FAMILY).all(conversation) as { id: string }[]
  let rows = 0
  for (const [table, column] of Object.entries(TABLES))
    for (const { id } of family)
      for (const row of store.prepare(`SELECT * FROM ${table} WHERE ${column} = ?`).iterate(id)) {
        yield `${JSON.stringify({ table, row: row as Row } satisfies Line)}\n`
        if (++rows % rowsAtOnce === 0) await turnOver()
      }
}

/** Writes a conversation into a file of that folder. */
export const saveConversation = async (home: string, conversation: string, folder: string): Promise<void> => {
  const store = openStore(home)
  try {
    await pipeline(linesOf(store, conversation), createWriteStream(path.join(folder, SAVED), { mode: 0o600 }))
  } finally {
    store.close()
  }
}

export const projectOf = (home: string, conversation: string): Project => {
  const store = openStore(home)
  try {
    const row = store.prepare('SELECT project_id, directory FROM session WHERE id = ?').get(conversation)
    if (row === undefined) throw new Error(`opencode does not know the conversation ${conversation}`)
    return row as unknown as Project
  } finally {
    store.close()
  }
}

/** The columns that this version of opencode has. */
const createInsert = (store: DatabaseSync) => {
  const columns = new Map<string, Set<string>>()
  for (const table of Object.keys(TABLES)) {
    const found = store.prepare(`SELECT name FROM pragma_table_info(?)`).all(table) as { name: string }[]
    columns.set(table, new Set(found.map(({ name }) => name)))
  }
  return ({ table, row }: Line): void => {
    const names = Object.keys(row).filter((name) => columns.get(table)?.has(name) === true)
    if (names.length === 0) throw new Error(`a conversation has no ${table}`)
    const list = names.map((name) => `"${name}"`).join(', ')
    const marks = names.map(() => '?').join(', ')
    store.prepare(`INSERT INTO ${table} (${list}) VALUES (${marks})`).run(...names.map((name) => row[name]!))
  }
}

/** A permission of the session that it belonged to, and a link under which it was shown, do not come along. */
const placed = ({ table, row }: Line, { project_id, directory }: Project): Line =>
  table === 'session'
    ? { table, row: { ...row, project_id, directory, workspace_id: null, permission: null, share_url: null } }
    : { table, row }

/** @returns whether there is one in the folder */
export const restoreConversation = async (home: string, folder: string, project: Project): Promise<boolean> => {
  const store = openStore(home)
  try {
    const insert = createInsert(store)
    let rows = 0
    store.exec('BEGIN IMMEDIATE')
    for await (const text of createInterface({
      input: createReadStream(path.join(folder, SAVED)),
      crlfDelay: Infinity,
    })) {
      insert(placed(JSON.parse(text) as Line, project))
      rows += 1
    }
    store.exec('COMMIT')
    return rows > 0
  } finally {
    // What was not committed is as if it had not been.
    store.close()
  }
}
