import { AppError } from '../domain/errors.ts'

/** What a harness may assume of the model behind the loopback, in tokens. */
export type ModelLimit = {
  /** Of the conversation, before which it sums it up. */
  context: number
  /** Of one answer. */
  output: number
}

/** The session's model is not known when a harness starts, so these have to suit whatever is behind the gateway: current coding models take both. */
const DEFAULTS = { MODEL_CONTEXT_TOKENS: 128_000, MODEL_OUTPUT_TOKENS: 16_384 }
const LEAST = 1_024

const tokensIn = (env: Record<string, string>, name: keyof typeof DEFAULTS): number => {
  const text = env[name] ?? ''
  if (text === '') return DEFAULTS[name]
  const tokens = Number(text)
  if (Number.isSafeInteger(tokens) && tokens >= LEAST) return tokens
  throw new AppError(
    'invalid',
    `${name} in the sandbox' environment is "${text}": it has to be a number of tokens, at least ${LEAST}`,
  )
}

/** @param env of the sandbox, where `MODEL_CONTEXT_TOKENS` and `MODEL_OUTPUT_TOKENS` say it of an installation's models */
export const modelLimitOf = (env: Record<string, string>): ModelLimit => ({
  context: tokensIn(env, 'MODEL_CONTEXT_TOKENS'),
  output: tokensIn(env, 'MODEL_OUTPUT_TOKENS'),
})
