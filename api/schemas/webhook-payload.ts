import { z } from 'zod'
import { PERMISSION_KINDS } from '../../domain/permission.ts'
import type { WebhookEvent } from '../../domain/webhook.ts'
import { Id, Time } from './common.ts'

const session = {
  session_id: Id,
  agent_id: Id,
  title: z.string().nullable(),
  seq: z.int().describe('Of the entry in the session’s log; events of a session have happened in this order.'),
}

const payload = <const T extends string, S extends z.core.$ZodShape>(type: T, name: string, shape: S) =>
  z
    .object({
      type: z.literal(type),
      timestamp: Time.describe('When it happened.'),
      data: z.object({ ...session, ...shape }),
    })
    .meta({ id: `Webhook${name}` })

const ended = {
  end_reason: z.string().describe('As of the session.'),
  code: z.string().nullable(),
  reason: z.string().nullable().describe('At most 2000 characters.'),
}

/** What is sent, by type. Small: what more there is to know is asked for under the ids. */
export const WEBHOOK_PAYLOADS: Record<WebhookEvent, { summary: string; schema: z.ZodObject }> = {
  'session.ready': {
    summary: 'A session takes messages; once for each session',
    schema: payload('session.ready', 'SessionReady', {
      spawn_mode: z.enum(['warm', 'cold']),
      attempt: z.int(),
      phases: z.record(z.string(), z.number()).describe('Moment of the start → ms since the request.'),
    }),
  },
  'turn.finished': {
    summary: 'A turn is over, in whatever way, also one that never began',
    schema: payload('turn.finished', 'TurnFinished', {
      turn_id: Id,
      status: z.enum(['done', 'failed', 'interrupted', 'cancelled']),
      error: z.object({ code: z.string(), message: z.string().nullable() }).nullable(),
      usage: z.record(z.string(), z.number().nullable()).nullable(),
    }),
  },
  'session.needs_input': {
    summary: 'The harness asks, and waits for an answer',
    schema: payload('session.needs_input', 'SessionNeedsInput', {
      turn_id: Id,
      permission: z.object({
        id: Id,
        kind: z.string().describe(`One of ${PERMISSION_KINDS.join(', ')}.`),
        title: z.string().describe('At most 500 characters.'),
      }),
      expires_at: Time,
    }),
  },
  'session.failed': {
    summary: 'A session has ended because of a failure',
    schema: payload('session.failed', 'SessionFailed', ended),
  },
  'session.ended': {
    summary: 'A session has ended as it should',
    schema: payload('session.ended', 'SessionEnded', ended),
  },
}
