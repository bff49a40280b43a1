import { setImmediate } from 'node:timers/promises'
import pLimit from 'p-limit'
import { readSnapshot } from '../db/snapshot.ts'
import type { OpenTurn, SnapshotRows } from '../db/snapshot.ts'
import { AppError } from '../domain/errors.ts'
import { snapshotsAtOnceMax } from '../domain/limits.ts'
import type { ApiDeps } from './deps.ts'
import { patiently } from './patience.ts'
import { presentPermission } from './present/permission.ts'
import { presentSession } from './present/session.ts'
import { presentThread } from './present/thread.ts'
import type { Snapshot } from './schemas/snapshot.ts'

/** A session as it stands at entry `seq` of its log. */
export type TakenSnapshot = { seq: number; snapshot: Snapshot }

/** Takes snapshots for the streams of this process: few at once, and one for all that want that of a session at the same time. */
export type Snapshots = { take(sessionId: string): Promise<TakenSnapshot> }

const presentTurn = ({ id, created_at }: OpenTurn) => ({ turn_id: id, created_at: created_at.toISOString() })

const present = (deps: Pick<ApiDeps, 'harnesses'>, rows: SnapshotRows): Snapshot => ({
  session: presentSession(deps, rows.session, { ...rows, needsInput: rows.permissions.length > 0 }),
  messages: presentThread(rows.session, rows.turns),
  turn:
    rows.running === null
      ? null
      : {
          ...presentTurn(rows.running.turn),
          started_at: rows.running.turn.started_at?.toISOString() ?? null,
          ...rows.running.reply,
        },
  queued: rows.queued.map(presentTurn),
  permissions: rows.permissions.map(presentPermission),
})

export const createSnapshots = (deps: Pick<ApiDeps, 'harnesses' | 'sql' | 'drain'>): Snapshots => {
  const limit = pLimit(snapshotsAtOnceMax)
  /** Those that nobody has begun to read. */
  const waiting = new Map<string, Promise<TakenSnapshot>>()

  const read = async (sessionId: string): Promise<TakenSnapshot> => {
    // Whoever asks in the same moment gets the same; whoever asks later may know of something that this one does not show.
    await setImmediate()
    waiting.delete(sessionId)
    const rows = await patiently({ signal: deps.drain, timeoutMs: Infinity }, () => readSnapshot(deps.sql, sessionId))
    if (rows === null) throw new AppError('not_found', `session ${sessionId} not found`)
    return { seq: rows.session.last_seq, snapshot: present(deps, rows) }
  }
  return {
    take(sessionId) {
      const taken = waiting.get(sessionId) ?? limit(read, sessionId)
      waiting.set(sessionId, taken)
      return taken
    },
  }
}
