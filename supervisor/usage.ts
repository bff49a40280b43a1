/** Tokens of one request, as far as its answer has told them. */
export type Tokens = { input?: number; output?: number }

/** As gateways write it: OpenAI's chat completions say prompt and completion; its responses, and Anthropic's messages, input and output. */
type Usage = { prompt_tokens?: number; completion_tokens?: number; input_tokens?: number; output_tokens?: number }
type Document = { usage?: Usage | null; message?: { usage?: Usage | null }; response?: { usage?: Usage | null } }

const usageOf = ({ usage, message, response }: Document): Usage | null =>
  usage ?? message?.usage ?? response?.usage ?? null

/** The usage in an answer, or in one event of a stream; null if it tells none. */
export const usageIn = (json: string): Tokens | null => {
  if (!json.includes('"usage"')) return null
  try {
    const usage = usageOf(JSON.parse(json) as Document)
    if (usage === null) return null
    const input = usage.prompt_tokens ?? usage.input_tokens
    const output = usage.completion_tokens ?? usage.output_tokens
    return { ...(input === undefined ? {} : { input }), ...(output === undefined ? {} : { output }) }
  } catch {
    return null
  }
}

/** A stream may tell its input first and its output last, each so far. */
export const later = (before: Tokens | null, now: Tokens | null): Tokens | null =>
  now === null ? before : { ...before, ...now }
