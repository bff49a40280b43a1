import { AppError } from '../domain/errors.ts'
import type { CheckpointStore, StoredArchive } from '../domain/checkpoint.ts'
import { checkpointChunkBytes } from '../domain/limits.ts'
import type { Sql } from './sql.ts'

/** Pieces of one size, whatever the sizes in which they come. */
async function* chunksOf(source: AsyncIterable<Uint8Array>, size: number): AsyncGenerator<Buffer> {
  let waiting: Uint8Array[] = []
  let length = 0
  for await (const piece of source) {
    for (let rest = piece; rest.length > 0;) {
      const part = rest.subarray(0, size - length)
      rest = rest.subarray(part.length)
      waiting.push(part)
      length += part.length
      if (length < size) continue
      yield Buffer.concat(waiting)
      waiting = []
      length = 0
    }
  }
  if (length > 0) yield Buffer.concat(waiting)
}

/** Archives in Postgres, in chunks, of which one at a time is in memory. They go with their row. */
export const createPostgresCheckpoints = (sql: Sql): CheckpointStore => ({
  kind: 'postgres',
  place: '',
  async put(id, archive, signal) {
    await sql.query('delete from checkpoint_chunk where checkpoint_id = $1', [id])
    let seq = 0
    for await (const data of chunksOf(archive.read(), checkpointChunkBytes)) {
      signal.throwIfAborted()
      await sql.query('insert into checkpoint_chunk (checkpoint_id, seq, data) values ($1, $2, $3)', [id, seq++, data])
    }
  },
  async *get(id, signal) {
    for (let seq = 0; ; seq++) {
      signal.throwIfAborted()
      const chunk = await sql.one<{ data: Buffer }>(
        'select data from checkpoint_chunk where checkpoint_id = $1 and seq = $2',
        [id, seq],
      )
      if (chunk === null && seq === 0)
        throw new AppError('not_found', `checkpoint ${id} has no archive in the database`)
      if (chunk === null) return
      yield chunk.data
    }
  },
  async remove(id) {
    await sql.query('delete from checkpoint_chunk where checkpoint_id = $1', [id])
  },
  list: (prefix) =>
    sql.query<StoredArchive>(
      `select c.id, sum(octet_length(k.data))::int bytes, c.created_at "at" from checkpoint_chunk k join checkpoint c on c.id = k.checkpoint_id
       where c.id::text like $1 || '%' group by c.id, c.created_at`,
      [prefix],
    ),
})
