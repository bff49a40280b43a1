import { webhookDisableAfterMs, webhookGiveUpMs, webhookRetryFirstMs, webhookRetryMaxMs } from './limits.ts'

/** What webhooks tell of. A session ends with one of the last two. */
export const WEBHOOK_EVENTS = [
  'session.ready',
  'turn.finished',
  'session.needs_input',
  'session.failed',
  'session.ended',
] as const
export type WebhookEvent = (typeof WEBHOOK_EVENTS)[number]

/** Sent on request, to see whether the receiver works. */
export const TEST_EVENT = 'webhook.test'

/**
 * One event for one webhook:
 *
 *   pending ──► delivered     a 2xx
 *      │  ▲
 *      │  └── redeliver, from every other status
 *      ├──────► failed        24 hours of tries, or 410
 *      └──────► cancelled     the webhook was disabled
 */
export const DELIVERY_STATUSES = ['pending', 'delivered', 'failed', 'cancelled'] as const
export type DeliveryStatus = (typeof DELIVERY_STATUSES)[number]

/** Why a webhook sends nothing: somebody wanted it, the receiver answered 410, or nothing was taken for days. */
export const DISABLED_REASONS = ['request', 'gone', 'failing'] as const
export type DisabledReason = (typeof DISABLED_REASONS)[number]

/** How one try went, in a word for metrics. `refused`: not sent, because of where it would have gone. */
export type AttemptResult = 'success' | 'status' | 'timeout' | 'connection' | 'refused'

/** What came of one try. */
export type Outcome = {
  result: AttemptResult
  statusCode: number | null
  /** Sentence for people; null after a success. */
  error: string | null
  /** Begin of what a receiver answered that was not content. */
  response: string | null
  /** From its `Retry-After`. */
  retryAfterMs: number | null
}

/** What is known of a delivery when a try is over. */
export type Progress = {
  type: string
  /** Tries before this one, since it was made or sent again on request. */
  tries: number
  /** Since then. */
  elapsedMs: number
  /** How long the webhook has failed without a success; null: it has not. */
  failingMs: number | null
}

export type NextStep =
  | { status: 'delivered' }
  | { status: 'pending'; waitMs: number }
  | { status: 'failed'; disable: Exclude<DisabledReason, 'request'> | null }

const GONE = 410
const JITTER = 0.1

/** Doubling twice each time: 5 s, 20 s, 80 s, 5 min, 21 min, 85 min, 5.7 h, and 6 h from then on. */
const backoffMs = (tries: number): number => Math.min(webhookRetryMaxMs, webhookRetryFirstMs * 4 ** Math.min(tries, 20))

/**
 * What follows from a try. Tries go on for `webhookGiveUpMs`, the last one at the end of it; `Retry-After` makes a wait longer, not the whole.
 * @param random from 0 to 1: deliveries that failed together do not come again together
 */
export const afterAttempt = (outcome: Outcome, progress: Progress, random: number): NextStep => {
  if (outcome.result === 'success') return { status: 'delivered' }
  if (progress.type === TEST_EVENT) return { status: 'failed', disable: null }
  if (outcome.statusCode === GONE) return { status: 'failed', disable: 'gone' }
  const leftMs = webhookGiveUpMs - progress.elapsedMs
  if (leftMs <= 0) {
    const disable = (progress.failingMs ?? 0) >= webhookDisableAfterMs ? 'failing' : null
    return { status: 'failed', disable }
  }
  const wished = backoffMs(progress.tries) * (1 + JITTER * (2 * random - 1))
  const waitMs = Math.round(Math.min(Math.max(wished, outcome.retryAfterMs ?? 0), leftMs))
  return { status: 'pending', waitMs: Math.max(1, waitMs) }
}

/** `Retry-After` in its two forms: seconds, or a date. @returns null when it is neither */
export const parseRetryAfter = (value: string | undefined, now: number): number | null => {
  const text = value?.trim() ?? ''
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1_000
  // Anything else that is read as a date, such as "-1", is none.
  if (!/^[A-Za-z]{3},/.test(text)) return null
  const at = Date.parse(text)
  return Number.isNaN(at) ? null : Math.max(0, at - now)
}
