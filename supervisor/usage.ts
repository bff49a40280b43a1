import type { TurnUsage } from '../domain/turn.ts'

/** As gateways write it: OpenAI's chat completions say prompt and completion; its responses, and Anthropic's messages, input and output. */
type Usage = {
  prompt_tokens?: number
  completion_tokens?: number
  prompt_tokens_details?: { cached_tokens?: number } | null
  input_tokens?: number
  output_tokens?: number
  input_tokens_details?: { cached_tokens?: number } | null
  cache_read_input_tokens?: number | null
  cache_creation_input_tokens?: number | null
  /** LiteLLM and others add it, in US dollars. */
  cost?: number | null
}
type Document = { usage?: Usage | null; message?: { usage?: Usage | null }; response?: { usage?: Usage | null } }

/** What one request has used, as far as its answer has told it. */
type Told = Pick<TurnUsage, 'input_tokens' | 'output_tokens' | 'cached_tokens' | 'cost_usd'>

const NOTHING: Told = { input_tokens: 0, output_tokens: 0, cached_tokens: 0, cost_usd: null }

/** The usage in an answer, or in one event of a stream; null if it tells none. */
const usageIn = (json: string): Usage | null => {
  if (!json.includes('"usage"')) return null
  try {
    const { usage, message, response } = JSON.parse(json) as Document
    return usage ?? message?.usage ?? response?.usage ?? null
  } catch {
    return null
  }
}

/** Anthropic counts what came out of a cache or went into one beside the input; OpenAI counts it as part of the input. */
const told = (usage: Usage): Told => {
  const read = usage.cache_read_input_tokens ?? 0
  const beside = usage.prompt_tokens === undefined ? read + (usage.cache_creation_input_tokens ?? 0) : 0
  const details = usage.prompt_tokens_details ?? usage.input_tokens_details
  return {
    input_tokens: (usage.prompt_tokens ?? usage.input_tokens ?? 0) + beside,
    output_tokens: usage.completion_tokens ?? usage.output_tokens ?? 0,
    cached_tokens: details?.cached_tokens ?? read,
    cost_usd: usage.cost ?? null,
  }
}

/** A last event repeats the whole answer, with all tools and instructions: some hundred KB. What is longer is not read. */
const lineCharsMax = 16 * 1_024 * 1_024

/** The data of a stream of events, line by line. */
export const dataReader = (onData: (data: string) => void) => {
  let rest = ''
  let isTooLong = false
  return (text: string): void => {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      if (!isTooLong && line.startsWith('data:')) onData(line.slice(5))
      isTooLong = false
    }
    if (rest.length <= lineCharsMax) return
    rest = ''
    isTooLong = true
  }
}

const plus = (a: number | null, b: number | null): number | null =>
  a === null && b === null ? null : (a ?? 0) + (b ?? 0)

export const noUsage = (): TurnUsage => ({ ...NOTHING, requests: 0 })

/**
 * Counts one request for a turn. A stream may tell its input first and its output last, each so far, and again: what was counted is corrected, so that the turn
 * has it all before the harness has read the end.
 */
export type Meter = {
  /** An answer, or one event of a stream. */
  hear(json: string): void
  /** What the answer's head says of its cost, in US dollars, as LiteLLM does of answers that are no streams. */
  cost(header: string | undefined): void
}

export const createMeter = (turn: TurnUsage): Meter => {
  let usage: Usage = {}
  let counted = NOTHING
  let headerCost: number | null = null
  const count = (): void => {
    const now = told(usage)
    now.cost_usd ??= headerCost
    for (const key of ['input_tokens', 'output_tokens', 'cached_tokens'] as const) turn[key] += now[key] - counted[key]
    turn.cost_usd = plus(turn.cost_usd, now.cost_usd === null ? null : now.cost_usd - (counted.cost_usd ?? 0))
    counted = now
  }
  return {
    hear(json) {
      const more = usageIn(json)
      if (more === null) return
      usage = { ...usage, ...more }
      count()
    },
    cost(header) {
      const cost = Number(header)
      if (header === undefined || header === '' || !Number.isFinite(cost)) return
      headerCost = cost
      count()
    },
  }
}
