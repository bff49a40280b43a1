import { z } from 'zod'
import { threadTurnsMax } from '../../domain/limits.ts'
import { TURN_STATUSES } from '../../domain/turn.ts'
import { Attachments, messageTextMax, SentParts } from './attachment.ts'
import { Id, Json, queryNumber, strict, Time } from './common.ts'

const Part = z.looseObject({ type: z.string('must name the kind of the part, for instance "text"').min(1) }).meta({
  id: 'Part',
  description:
    'A part in the shape of the harness: `{type: "text", text}`, `{type: "file", mime, url, filename}`, `{type: "tool", …}`.',
})

const Text = z.string().max(messageTextMax, `must have at most ${messageTextMax} characters`)

export const MessageSend = strict({
  text: Text.optional(),
  parts: SentParts.optional(),
  attachments: Attachments.optional(),
})
  .refine((body) => (body.attachments ?? []).length > 0 || body.parts !== undefined || (body.text ?? '') !== '', {
    message: 'needs text, parts or attachments',
  })
  .meta({
    id: 'MessageSend',
    description: '`attachments` (after `text`) or `parts` or `text`, in this order of preference.',
  })
export type MessageSend = z.output<typeof MessageSend>

export const MessagePatch = strict({
  text: Text.exactOptional(),
  parts: SentParts.exactOptional(),
  attachments: Attachments.exactOptional(),
})
  .refine((body) => Object.keys(body).length > 0, 'needs text, attachments or parts')
  .refine((body) => body.parts === undefined || Object.keys(body).length === 1, {
    message: 'replaces everything: leave text and attachments out',
    path: ['parts'],
  })
  .meta({
    id: 'MessagePatch',
    description:
      '`text` takes the place of what was written, `attachments` that of the images; what is left out stays. `parts` takes the place of everything.',
  })
export type MessagePatch = z.output<typeof MessagePatch>

export const QueuedMessage = z
  .object({
    id: Id.describe('Of the turn; the first message of the queue runs next.'),
    status: z.enum(TURN_STATUSES),
    parts: z.array(Part).describe('In a list without the contents of files.'),
    created_at: Time,
    edited_at: Time.nullable(),
  })
  .meta({ id: 'QueuedMessage' })
export type QueuedMessage = z.output<typeof QueuedMessage>

export const Queue = z.array(QueuedMessage).meta({ id: 'Queue' })

export const MessageDeleted = z.object({ id: Id, status: z.literal('deleted') }).meta({ id: 'MessageDeleted' })

export const SentNow = z
  .object({
    id: Id,
    status: z.enum(TURN_STATUSES).describe('`queued`: it runs next; `running`: it runs already.'),
    interrupted_turn_id: Id.nullable().describe('The turn that stops for it.'),
  })
  .meta({ id: 'SentNow' })

export const Message = z
  .object({ info: Json.describe('At least `id`, `sessionID` and `role`.'), parts: z.array(Part) })
  .meta({ id: 'Message' })
export type Message = z.output<typeof Message>

export const MessageList = z.array(Message).meta({ id: 'MessageList' })

export const LogEntry = z
  .object({
    id: z.string(),
    kind: z.enum(['created', 'user', 'thinking', 'tool', 'response', 'assistant', 'recovered', 'ended']),
    at: Time,
    title: z.string(),
    detail: z.string().optional(),
    meta: z.string().optional(),
    status: z.string().optional(),
  })
  .meta({ id: 'LogEntry' })
export type LogEntry = z.output<typeof LogEntry>

export const Log = z.array(LogEntry).meta({ id: 'Log' })

/** Cursors are taken as they come: a wrong one is answered in the stream, by `resync`. */
export const StreamQuery = z.object({
  after: z
    .string()
    .max(100)
    .optional()
    .describe('Number of the last event seen; `Last-Event-ID` does the same and wins.'),
  follow: z.string().optional().describe('`1`: the stream stays open after the end of a turn.'),
  snapshot: z
    .enum(['0', '1'], 'must be 0 or 1')
    .optional()
    .describe(
      '`1`: the stream begins with a snapshot of the session in place of its log, unless a good cursor was sent.',
    ),
})

export const SandboxLogsQuery = z.object({
  sinceSeconds: queryNumber(1, 3600)
    .default(600)
    .describe('Only lines of the last seconds; kept lines of a sandbox that is gone are all given.'),
  tailLines: queryNumber(1, 5000).default(500).describe('The last lines; a sandbox keeps 1,000.'),
})

export const TurnsQuery = z.object({
  limit: queryNumber(1, threadTurnsMax).default(threadTurnsMax).describe('Turns, the newest ones.'),
})
