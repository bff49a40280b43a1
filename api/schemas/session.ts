import { z } from 'zod'
import { SESSION_STATUSES } from '../../domain/session.ts'
import { Attachments } from './attachment.ts'
import { Id, Json, Limit, Offset, strict, Time } from './common.ts'
import { EnvVars } from './env.ts'
import { MaxCostUsd, MaxTurns } from './limits.ts'
import { Permissions } from './permission.ts'

export const SessionCreate = strict({
  title: z.string().max(500, 'must have at most 500 characters').nullable().optional(),
  initial_prompt: z
    .string()
    .max(1_000_000, 'must have at most 1000000 characters')
    .optional()
    .describe('The first message; it runs as soon as the session is ready.'),
  initial_attachments: Attachments.optional(),
  env_vars: EnvVars.optional().describe('Environment of this session, over the agent’s.'),
  max_turns: MaxTurns.optional(),
  max_cost_usd: MaxCostUsd.optional(),
}).meta({ id: 'SessionCreate' })
export type SessionCreate = z.output<typeof SessionCreate>

export const SessionPatch = strict({
  max_turns: MaxTurns.exactOptional(),
  max_cost_usd: MaxCostUsd.exactOptional(),
}).meta({ id: 'SessionPatch', description: 'What is left out stays.' })

export const SessionCreateQuery = z.object({
  wait: z
    .literal('ready', 'must be "ready"')
    .optional()
    .describe('`ready`: the reply waits up to 60 s for the session to leave `creating`.'),
})

export const Session = z
  .object({
    id: Id,
    agent_id: Id,
    title: z.string().nullable(),
    title_preview: z.string().nullable(),
    status: z.enum(SESSION_STATUSES),
    needs_input: z.boolean().describe('Its harness waits for an answer: see `permissions`.'),
    phase: z.string().nullable(),
    phase_detail: z.string().nullable(),
    spawn_mode: z.enum(['warm', 'cold']),
    claim_outcome: z.string().describe('What the warm pool answered: hit, hit_shared, or why it missed.'),
    model: z.string(),
    harness_session_id: z.string().nullable(),
    sandbox_url: z.string().nullable(),
    sandboxes: z.record(z.string(), z.string()).nullable(),
    task_arn: z.string().nullable().describe('Name of the sandbox.'),
    tty_url: z
      .string()
      .nullable()
      .describe('Its terminal, below the base URL, while it is ready and has one: see `tty-ticket`.'),
    tty_token: z.null().describe('Always null: a terminal is opened with a ticket.'),
    supports_tui: z.boolean(),
    response: Json.nullable(),
    attempt: z.int().describe('Sandboxes this session has had.'),
    last_seq: z.int().describe('Number of the last event; `?after=` it streams only what is new.'),
    phases: z.record(z.string(), z.number()).describe('Moment of the start → milliseconds since the request.'),
    idle_timeout_ms: z.int().nullable(),
    permissions: Permissions,
    max_turns: z.int().nullable(),
    max_cost_usd: z.number().nullable(),
    limit_reached: z
      .enum(['max_turns', 'max_cost_usd'])
      .nullable()
      .describe('Why it takes no more messages, until that limit is raised.'),
    usage: z
      .object({
        turns: z.int().describe('Turns that have begun, however they ended.'),
        input_tokens: z.int(),
        output_tokens: z.int(),
        cached_tokens: z.int().describe('Of the input, what was read from a cache.'),
        requests: z.int().describe('Requests to the gateway.'),
        cost_usd: z.number().nullable().describe('null: the gateway has told no cost.'),
      })
      .describe(
        'Of all turns that are over, and of terminals, as far as it is known: what a turn used whose sandbox was lost is not.',
      ),
    forked_from: z
      .object({
        session_id: Id,
        checkpoint_id: Id,
        turn_id: Id.describe('Of that session; the last one that this one knows.'),
      })
      .nullable()
      .describe('The checkpoint of another session that this one began with.'),
    failure_code: z.string().nullable(),
    failure_reason: z.string().nullable(),
    end_reason: z.string().nullable(),
    origin: Json.nullable(),
    created_at: Time,
    ready_at: Time.nullable(),
    last_seen_at: Time.nullable(),
    ended_at: Time.nullable(),
  })
  .meta({ id: 'Session' })
export type Session = z.output<typeof Session>

export const SessionList = z.array(Session).meta({ id: 'SessionList' })

export const SessionListQuery = z.object({
  agent_id: z.string().optional(),
  status: z.enum(SESSION_STATUSES, `must be one of ${SESSION_STATUSES.join(', ')}`).optional(),
  needs_input: z
    .stringbool({ truthy: ['true', '1'], falsy: ['false', '0'], error: 'must be true or false' })
    .optional(),
  limit: Limit,
  offset: Offset,
  cursor: z
    .string()
    .max(200)
    .optional()
    .describe('From the `X-Next-Cursor` header of the page before; use instead of `offset`.'),
})

export const SessionDeleted = z.object({ id: Id, status: z.string() }).meta({ id: 'SessionDeleted' })
export const Ok = z.object({ ok: z.literal(true) }).meta({ id: 'Ok' })
