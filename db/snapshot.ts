import { threadTurnsMax } from '../domain/limits.ts'
import type { PermissionRow } from './entities/permission.ts'
import type { SandboxRow } from './entities/sandbox.ts'
import type { SessionRow } from './entities/session.ts'
import type { TurnRow } from './entities/turn.ts'
import { listPermissions } from './permissions.ts'
import { runningReply } from './reply.ts'
import type { RunningReply } from './reply.ts'
import { getSandbox } from './sandboxes.ts'
import { getSession } from './sessions.ts'
import type { Sql } from './sql.ts'
import { firstText, listTurns } from './thread.ts'

export type OpenTurn = Pick<TurnRow, 'id' | 'created_at' | 'started_at'>

/** A session as it stands at one entry of its log: that of `session.last_seq`. */
export type SnapshotRows = {
  session: SessionRow
  sandbox: SandboxRow | null
  firstText: string | null
  /** As `listTurns`. */
  turns: TurnRow[]
  running: { turn: OpenTurn; reply: RunningReply } | null
  /** In the order in which they will run. */
  queued: OpenTurn[]
  /** What the harness asks and nobody has answered. */
  permissions: PermissionRow[]
}

/** A harness asks one thing after the other, or some at once. */
const openPermissionsMax = 200

const read = async (tx: Sql, sessionId: string): Promise<SnapshotRows | null> => {
  // The first look fixes what all others see; this is how the rows and the log can be told apart from what comes after.
  await tx.query('set transaction isolation level repeatable read, read only')
  const session = await getSession(tx, sessionId)
  if (session === null) return null
  const open = await tx.query<OpenTurn & Pick<TurnRow, 'status'>>(
    `select id, status, created_at, started_at from turn where session_id = $1 and status in ('queued', 'running') order by seq`,
    [sessionId],
  )
  const running = open.find(({ status }) => status === 'running')
  return {
    session,
    sandbox: session.sandbox_id === null ? null : await getSandbox(tx, session.sandbox_id),
    firstText: session.title === null ? await firstText(tx, sessionId) : null,
    turns: await listTurns(tx, sessionId, threadTurnsMax),
    running:
      running === undefined
        ? null
        : {
            turn: running,
            reply: await runningReply(tx, { sessionId, turnId: running.id, upTo: session.last_seq }),
          },
    queued: open.filter(({ status }) => status === 'queued'),
    permissions: await listPermissions(tx, sessionId, { status: 'open', limit: openPermissionsMax }),
  }
}

/**
 * Reads all that a client shows of a session, in one repeatable-read transaction: it says exactly what the log up to `session.last_seq` says.
 * @returns null when there is no such session
 */
export const readSnapshot = (sql: Sql, sessionId: string): Promise<SnapshotRows | null> =>
  sql.tx((tx) => read(tx, sessionId))
