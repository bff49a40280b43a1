import { createReplyCollector } from '../domain/reply.ts'
import type { ReplySoFar } from '../domain/reply.ts'
import type { MessagePart } from '../domain/turn.ts'
import type { Sql } from './sql.ts'

/** What Postgres looks through of a turn, the newest: in events, and in bytes as stored, so compressed. */
const searchedEventsMax = 200_000
const searchedBytesMax = 64 * 1_024 * 1_024
/** As JSON: the newest parts that fit, and one at least, however large. */
const replyBytesMax = 16 * 1_024 * 1_024

export type RunningReply = ReplySoFar & {
  /** The turn has said more than is looked through or given at once: its oldest parts are missing. */
  truncated: boolean
}

type Row =
  | { kind: 'info'; doc: Record<string, unknown>; kept: boolean }
  | { kind: 'part'; doc: MessagePart; deltas: Record<string, string>; kept: boolean }
  | { kind: 'unread'; kept: false }

/**
 * $1 session, $2 the entry that began the turn, $3 the last one to be looked at, $4 turn. A turn of hours says most things many times: a tool's output grows with each
 * update of its part, a text comes in thousands of deltas. Only the last update of each part is read, and the deltas behind it as one text, so that what leaves Postgres is as
 * large as the reply and not as the log. `first` is the place of a part in the reply. No joins between these tables: Postgres knows no sizes of theirs.
 */
const COMPACTED = `
  with said as materialized (
    select seq,
      case when turn_id = $4 and (kind in ('message.part.updated', 'message.part.delta', 'message.part.removed')
        or kind = 'message.updated' and p#>>'{info,role}' = 'assistant') then kind end kind,
      case kind when 'message.updated' then p#>>'{info,id}' when 'message.part.updated' then p#>>'{part,messageID}' else p->>'messageID' end message,
      case kind when 'message.part.updated' then p#>>'{part,id}' else p->>'partID' end part,
      case kind when 'message.part.delta' then coalesce(p->>'field', '') else '' end field,
      p->>'delta' delta
    from (
      select seq, data, sum(size) over (order by seq desc) - size before from (
        select seq, data, pg_column_size(data) size from event
        where session_id = $1 and seq > $2 and seq <= $3 and type = 'harness' order by seq desc limit ${searchedEventsMax}) newest) sized,
      lateral (select data->>'turn_id' turn_id, data->>'type' kind, data->'properties' p offset 0) read
    where before < ${searchedBytesMax}),
  infos as (
    select message, min(seq) first, max(seq) updated from said where kind = 'message.updated' and message is not null group by message),
  marked as (
    select *, max(seq) filter (where kind = 'message.part.updated') over of_part updated,
      coalesce(max(seq) filter (where kind = 'message.part.removed') over of_part, 0) removed
    from said where kind <> 'message.updated' and message is not null and part is not null window of_part as (partition by message, part)),
  fields as (
    select message, part, field, max(updated) updated,
      min(seq) filter (where kind = 'message.part.updated' and seq > removed) "first",
      string_agg(delta, '' order by seq) filter (where kind = 'message.part.delta' and seq > updated) said
    from marked where updated > removed and message in (select message from infos) group by message, part, field),
  parts as (
    select max(updated) updated, min("first") "first", coalesce(jsonb_object_agg(field, said) filter (where said is not null), '{}') deltas
    from fields group by message, part),
  docs as (
    select 'info' kind, "first", data#>'{properties,info}' doc, '{}'::jsonb deltas
    from infos join event on session_id = $1 and seq = updated
    union all
    select 'part', "first", data#>'{properties,part}', deltas
    from parts join event on session_id = $1 and seq = updated),
  sized as (
    select *, sum(size) over (partition by kind order by "first" desc) - size before from (
      select *, length(doc::text) + length(deltas::text) size from docs) measured)
  select kind, "first", case when before < ${replyBytesMax} then doc end doc, case when before < ${replyBytesMax} then deltas end deltas, before < ${replyBytesMax} kept from sized
  union all
  select 'unread', 0, null, null, false where exists (
    select from event where session_id = $1 and seq > $2 and seq < (select min(seq) from said) and type = 'harness')
  order by kind, "first"`

/**
 * What a running turn has replied up to an entry of the log, as `createReplyCollector` would gather it from the events.
 * Measured on two shared cores: 10 ms for a turn of 1,000 events, 340 ms for one of 50,000, 1.5 s for the 200,000 that are looked through at most. The memory it takes here is that of
 * the reply, whatever the number of events.
 */
export const runningReply = async (
  tx: Sql,
  { sessionId, turnId, upTo }: { sessionId: string; turnId: string; upTo: number },
): Promise<RunningReply> => {
  const began = await tx.one<{ seq: number }>(
    `select seq from event where session_id = $1 and seq <= $2 and type = 'turn.started' and data->>'turn_id' = $3 order by seq desc limit 1`,
    [sessionId, upTo, turnId],
  )
  const rows = await tx.query<Row>(COMPACTED, [sessionId, began?.seq ?? upTo, upTo, turnId])
  const collector = createReplyCollector()
  for (const row of rows) {
    if (!row.kept) continue
    if (row.kind === 'info') collector.hear({ type: 'message.updated', properties: { info: row.doc } })
    else {
      const { id: partID, messageID } = row.doc
      collector.hear({ type: 'message.part.updated', properties: { part: row.doc } })
      for (const [field, delta] of Object.entries(row.deltas))
        collector.hear({ type: 'message.part.delta', properties: { messageID, partID, field, delta } })
    }
  }
  return { ...collector.soFar(), truncated: rows.some(({ kept }) => !kept) }
}
