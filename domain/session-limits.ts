import type { TurnUsage } from './turn.ts'

/** What a session may use before it takes no more messages; null: as much as it likes. */
export type SessionLimits = { max_turns: number | null; max_cost_usd: number | null }
export type SessionLimit = keyof SessionLimits

/** What the turns of a session have used together. */
export type SessionUsage = {
  /** Turns that have begun, however they ended. */
  turns: number
  input_tokens: number
  output_tokens: number
  /** Of the input, what was read from a cache. */
  cached_tokens: number
  /** Requests to the gateway. */
  requests: number
  /** null: the gateway has told no cost. */
  cost_usd: number | null
}

export const noUsage: SessionUsage = {
  turns: 0,
  input_tokens: 0,
  output_tokens: 0,
  cached_tokens: 0,
  requests: 0,
  cost_usd: null,
}

/** Sums of binary fractions stray from the decimal ones that limits are given in: 0.7 + 0.1 is less than 0.8. */
const money = (usd: number): number => Math.round(usd * 1e9) / 1e9

/** What a sandbox tells whose supervisor is of an earlier version. */
type AnyUsage = Omit<TurnUsage, 'cached_tokens' | 'cost_usd'> & Partial<TurnUsage>

/** With what one more turn has used, as far as it is known. */
export const withTurnUsage = (sum: SessionUsage, turn: AnyUsage | null): SessionUsage => {
  if (turn === null) return sum
  const { input_tokens, output_tokens, cached_tokens = 0, requests, cost_usd = null } = turn
  return {
    ...sum,
    input_tokens: sum.input_tokens + input_tokens,
    output_tokens: sum.output_tokens + output_tokens,
    cached_tokens: sum.cached_tokens + cached_tokens,
    requests: sum.requests + requests,
    cost_usd: cost_usd === null ? sum.cost_usd : money((sum.cost_usd ?? 0) + cost_usd),
  }
}

/** What a sandbox has used between two of its sums; one that is smaller than before is of another count, and adds nothing. */
export const usageBetween = (before: TurnUsage | null, now: TurnUsage): TurnUsage => {
  const grown = (key: 'input_tokens' | 'output_tokens' | 'cached_tokens' | 'requests'): number =>
    Math.max(0, now[key] - (before?.[key] ?? 0))
  return {
    input_tokens: grown('input_tokens'),
    output_tokens: grown('output_tokens'),
    cached_tokens: grown('cached_tokens'),
    requests: grown('requests'),
    cost_usd: now.cost_usd === null ? null : Math.max(0, now.cost_usd - (before?.cost_usd ?? 0)),
  }
}

export type LimitReached = { limit: SessionLimit; max: number; used: number }

/** The limit that stops a session, if one does. Where the gateway tells no cost, that of the cost is never reached. */
export const limitReached = (limits: SessionLimits, usage: SessionUsage): LimitReached | null => {
  const { max_turns, max_cost_usd } = limits
  if (max_turns !== null && usage.turns >= max_turns) return { limit: 'max_turns', max: max_turns, used: usage.turns }
  if (max_cost_usd !== null && usage.cost_usd !== null && usage.cost_usd >= max_cost_usd)
    return { limit: 'max_cost_usd', max: max_cost_usd, used: usage.cost_usd }
  return null
}
