import type { SessionRow } from '../db/entities/session.ts'
import { openTurns } from '../db/turns.ts'
import type { SessionEvent } from '../domain/events.ts'
import { isEnded } from '../domain/session.ts'
import type { ApiDeps } from './deps.ts'
import { followLog } from './follow.ts'
import type { Context } from './http.ts'
import { readCursor } from './present/stream.ts'
import type { Presenter, SnapshotFrame } from './present/stream.ts'
import { stream } from './sse.ts'
import type { Frame } from './sse.ts'

export type LogStreamOptions = {
  session: SessionRow
  /** `?after=`; the header `Last-Event-ID` wins over it. */
  after: string | null
  /** Stay after the end of a turn. */
  follow: boolean
  /** First frame. */
  opened: Frame
  present: Presenter
  /** Begin with this in place of the log, unless a good cursor was sent. */
  snapshot: (() => Promise<SnapshotFrame>) | null
  /** Frame sent when the stream ends because a turn did, if any. */
  closing: Frame | null
}

const endsTurn = (event: SessionEvent): boolean => event.type === 'turn.finished'

const nothingOpen = async (deps: ApiDeps, sessionId: string): Promise<boolean> =>
  (await openTurns(deps.sql, sessionId)).length === 0

/**
 * Delivers the log of a session from the client's cursor and what is appended to it; to a client without a good cursor, if it wants that, a snapshot and what is
 * appended after it.
 *
 * Without `follow` the stream ends with a turn: with one that ended after the client came, or, for a client that comes back with a cursor,
 * with one that it had not seen the end of. Old turns that are only replayed end nothing.
 * A client that has everything of an ended session gets 204, on which `EventSource` stops asking.
 */
export const streamLog = async (ctx: Context, deps: ApiDeps, options: LogStreamOptions): Promise<void> => {
  const { session, follow, present } = options
  const sent = ctx.get('last-event-id')
  const cursor = readCursor(sent === '' ? options.after : sent, session.last_seq)
  if (isEnded(session.status) && cursor.given && cursor.resync === null && cursor.after === session.last_seq) {
    ctx.status = 204
    return
  }
  await stream(ctx, deps, session.id, async ({ send, signal }) => {
    await send([options.opened])
    if (cursor.resync !== null)
      await send([{ data: { type: 'resync', reason: cursor.resync, last_seq: session.last_seq } }])
    const isNew = !cursor.given || cursor.resync !== null
    const snapshot = isNew && options.snapshot !== null ? await options.snapshot() : null
    if (snapshot !== null) await send([snapshot])
    const head = snapshot?.id ?? session.last_seq
    let unseenEnd = false
    for await (const batch of followLog(deps, session.id, snapshot?.id ?? cursor.after, signal)) {
      const last = follow ? -1 : batch.findIndex((event) => endsTurn(event) && event.seq > head)
      const shown = last === -1 ? batch : batch.slice(0, last + 1)
      await send(shown.map(present))
      if (cursor.given && snapshot === null && batch.some(endsTurn)) unseenEnd = true
      const caughtUp = (batch.at(-1)?.seq ?? head) >= head
      const replayedEnd = !follow && unseenEnd && caughtUp && (await nothingOpen(deps, session.id))
      if (last !== -1 || replayedEnd) break
    }
    if (options.closing !== null && !signal.aborted) await send([options.closing])
  })
}
