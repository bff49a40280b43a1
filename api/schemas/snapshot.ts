import { z } from 'zod'
import { Id, Json, Time } from './common.ts'
import { Message, MessageList } from './message.ts'
import { PermissionList } from './permission.ts'
import { Session } from './session.ts'

const QueuedTurn = z.object({ turn_id: Id, created_at: Time })

const RunningTurn = z.object({
  turn_id: Id,
  created_at: Time,
  started_at: Time.nullable(),
  reply: Message.nullable().describe('What the harness has replied so far, as the reply of a turn that is over.'),
  earlier: z
    .array(Json)
    .describe(
      '`info` of each message of the harness before the last one, in order; `reply.info` is that of the last one.',
    ),
  truncated: z.boolean().describe('The reply is too long to be given at once: its oldest parts are missing.'),
})

/** What a stream with `snapshot=1` begins with. */
export const Snapshot = z
  .object({
    session: Session,
    messages: MessageList.describe('As `GET …/messages`, with those that wait and the one that is being answered.'),
    turn: RunningTurn.nullable().describe('The turn that runs.'),
    queued: z.array(QueuedTurn).describe('The turns that wait, in the order in which they will run.'),
    permissions: PermissionList.describe('What the harness asks and nobody has answered.'),
  })
  .meta({
    id: 'Snapshot',
    description:
      'A session as it stands at one event of its log, whose number is the frame’s id: what follows it needs no history.',
  })
export type Snapshot = z.output<typeof Snapshot>
