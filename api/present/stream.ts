import type { SessionEvent } from '../../domain/events.ts'
import type { TakenSnapshot } from '../snapshot.ts'
import type { Frame } from '../sse.ts'

/** How an entry of the log looks in a stream. The same entry is always the same frame. */
export type Presenter = (event: SessionEvent) => Frame
/** How a snapshot looks in a stream. The same one is always the same frame. */
type SnapshotPresenter = (taken: TakenSnapshot) => SnapshotFrame
export type SnapshotFrame = Frame & { id: number }

const once = <T extends object, F extends Frame>(present: (of: T) => F): ((of: T) => F) => {
  const frames = new WeakMap<T, F>()
  return (of) => {
    const frame = frames.get(of) ?? present(of)
    frames.set(of, frame)
    return frame
  }
}

/** The harness' event as it came. */
const harnessEvent = ({ data }: SessionEvent): { type: unknown; properties: unknown } => ({
  type: data.type,
  properties: data.properties ?? {},
})

/** `…/events`: everything, wrapped, so that the harness' names and ours cannot be mistaken for each other. */
export const presentWrapped: Presenter = once((event) => ({
  id: event.seq,
  data:
    event.type === 'harness'
      ? { type: 'harness_event', seq: event.seq, turn_id: event.data.turn_id, event: harnessEvent(event) }
      : {
          type: 'session_event',
          seq: event.seq,
          event: { type: event.type, data: event.data, created_at: event.created_at },
        },
}))

export const presentSnapshot: SnapshotPresenter = once(({ seq, snapshot }) => ({
  id: seq,
  data: { type: 'snapshot', seq, snapshot },
}))

/** `…/stream`: events of the harness unchanged; ours in the same form under `lap.`, for a harness has a `session.created` too. */
export const presentRaw: Presenter = once((event) => ({
  id: event.seq,
  data:
    event.type === 'harness'
      ? harnessEvent(event)
      : { type: `lap.${event.type}`, properties: { ...event.data, created_at: event.created_at } },
}))

export const presentRawSnapshot: SnapshotPresenter = once(({ seq, snapshot }) => ({
  id: seq,
  data: { type: 'lap.snapshot', properties: snapshot },
}))

/** A cursor as it was sent, against the end of the log. */
export type Cursor = { after: number; given: boolean; resync: string | null }

/**
 * A cursor that is no number of the log cannot be continued from: the log is delivered from its start, after an explicit `resync`.
 * @param sent `Last-Event-ID` or `?after=`, or null
 */
export const readCursor = (sent: string | null, lastSeq: number): Cursor => {
  if (sent === null) return { after: 0, given: false, resync: null }
  if (!/^\d{1,15}$/.test(sent)) return { after: 0, given: true, resync: 'the cursor is not a number' }
  const after = Number(sent)
  if (after > lastSeq)
    return { after: 0, given: true, resync: `the cursor ${after} is beyond the end of the log, ${lastSeq}` }
  return { after, given: true, resync: null }
}
