import { AppError } from '../domain/errors.ts'
import { DELETED } from '../domain/turn.ts'
import { insertSession, refused, sessionOfKey } from './claims.ts'
import type { Created, NewSession } from './claims.ts'
import { restorableCheckpoints } from './checkpoints.ts'
import type { CheckpointRow } from './entities/checkpoint.ts'
import type { ForkedFrom, SessionRow } from './entities/session.ts'
import { lockSession, lockSessionRow, writeEvents } from './session-end.ts'
import { violatedConstraint } from './sql.ts'
import type { Sql } from './sql.ts'

/** Which checkpoint; neither: the newest. */
export type ForkPoint = { checkpointId?: string; turnId?: string }

export type Fork = {
  sourceId: string
  from: ForkPoint
  idempotencyKey: string | null
  bodyHash: string | null
  /** The new session, made from the one that is forked. */
  make(source: SessionRow): NewSession
}

const findCheckpoint = async (
  tx: Sql,
  source: SessionRow,
  { checkpointId, turnId }: ForkPoint,
): Promise<CheckpointRow | null> =>
  checkpointId === undefined && turnId === undefined
    ? ((await restorableCheckpoints(tx, source))[0] ?? null)
    : tx.one<CheckpointRow>(
        `select * from checkpoint where session_id = $1 and state = 'stored' and ($2::uuid is null or id = $2) and ($3::uuid is null or turn_id = $3)
         order by created_at desc limit 1`,
        [source.id, checkpointId ?? null, turnId ?? null],
      )

/**
 * Under the lock of its session no checkpoint is given up. A fork without one of its own goes by that of another session, which is locked too: always an earlier
 * one, so no two wait for each other.
 * @throws AppError `conflict` with `no_checkpoint`
 */
const lockedCheckpoint = async (tx: Sql, source: SessionRow, from: ForkPoint): Promise<CheckpointRow> => {
  let found = await findCheckpoint(tx, source, from)
  if (found !== null && found.session_id !== source.id) {
    await lockSession(tx, found.session_id)
    found = await findCheckpoint(tx, source, from)
  }
  if (found !== null) return found
  const { checkpointId, turnId } = from
  const what = turnId !== undefined ? `behind the turn ${turnId}` : (checkpointId ?? 'yet')
  const message = `session ${source.id} has no checkpoint ${what}: its checkpoints are listed at /checkpoints, one comes a moment after each turn`
  throw new AppError('conflict', message, { reason: 'no_checkpoint' })
}

/** The conversation up to the checkpoint, as turns of the new session with the numbers that they had. */
const copyTurns = async (tx: Sql, { sourceId, forkId, upTo }: { sourceId: string; forkId: string; upTo: number }) => {
  const copied = await tx.query(
    `insert into turn (id, session_id, seq, status, parts, model, reply, error, usage, created_at, started_at, finished_at, edited_at)
     select gen_random_uuid(), $2, seq, status, parts, model, reply, error, usage, created_at, started_at, finished_at, edited_at
     from turn where session_id = $1 and seq <= $3 and status not in ('queued', 'running') and error->>'code' is distinct from '${DELETED}' returning id`,
    [sourceId, forkId, upTo],
  )
  return copied.length
}

const fork = (sql: Sql, { sourceId, from, make }: Fork): Promise<Created> =>
  sql.tx(async (tx) => {
    const source = await lockSessionRow(tx, sourceId)
    if (source === null) throw new AppError('not_found', `session ${sourceId} not found`)
    // Locked until the new session is there, which keeps it from then on.
    const checkpoint = await lockedCheckpoint(tx, source, from)
    const session = make(source)
    const made = await insertSession(tx, session)
    if (made === null) return refused(tx, session)
    const forkedFrom: ForkedFrom = { session_id: sourceId, checkpoint_id: checkpoint.id, turn_id: checkpoint.turn_id }
    const turns = await copyTurns(tx, { sourceId, forkId: session.id, upTo: checkpoint.turn_seq })
    await writeEvents(tx, made.session, [{ type: 'session.forked', data: { ...forkedFrom, turns } }])
    const row = await tx.one<SessionRow>('update session set forked_from = $2::jsonb where id = $1 returning *', [
      session.id,
      forkedFrom,
    ])
    return { ...made, existing: false, session: row! }
  })

/**
 * Makes a session that begins where a checkpoint of another one was taken, with the conversation so far and a warm sandbox when there is one: one transaction. Its
 * workflow restores the checkpoint.
 * @throws AppError `not_found`; `conflict` without a checkpoint (`no_checkpoint`), or for a known idempotency key with another body; `rate_limited`
 */
export const forkSession = async (sql: Sql, asked: Fork): Promise<Created> => {
  const { idempotencyKey: key, bodyHash } = asked
  // Also when the checkpoint is not there any more.
  if (key !== null && (await sql.one('select from session where idempotency_key = $1', [key])) !== null)
    return { existing: true, session: await sessionOfKey(sql, key, bodyHash) }
  try {
    return await fork(sql, asked)
  } catch (error) {
    if (violatedConstraint(error) !== 'session_idempotency_key_key') throw error
    return { existing: true, session: await sessionOfKey(sql, key, bodyHash) }
  }
}
