/**
 * One message of the user and everything the harness does about it.
 *
 *   queued ──► running ──► done | failed | cancelled | interrupted
 *      └─────────────────► cancelled (taken back, aborted, a limit reached, or the session ended, before it began)
 *
 * `interrupted`: the sandbox was lost while it ran; it may be sent again, and is never run twice by itself.
 */
export const TURN_STATUSES = ['queued', 'running', 'done', 'failed', 'interrupted', 'cancelled'] as const
export type TurnStatus = (typeof TURN_STATUSES)[number]

/** A part of a message, in the harness' own shape (`{type: 'text', text}`, `{type: 'tool', …}`, `{type: 'file', …}`). */
export type MessagePart = { type: string; [key: string]: unknown }

/** What a turn replies: the assistant's message in the shape of the harness API. */
export type TurnReply = { info: Record<string, unknown>; parts: MessagePart[] }

/** What a turn has used of models, as far as the gateway has told it. */
export type TurnUsage = {
  /** All of it, also what was read from a cache. */
  input_tokens: number
  output_tokens: number
  /** Of the input, what was read from a cache. */
  cached_tokens: number
  /** US dollars; null: the gateway told none. */
  cost_usd: number | null
  /** Requests to the gateway. */
  requests: number
}

/** Code of the error of a turn that was taken back while it waited. */
export const DELETED = 'deleted'

export const isTurnOver = (status: TurnStatus): boolean => status !== 'queued' && status !== 'running'
