import { z } from 'zod'

export const MaxTurns = z
  .int('must be a whole number')
  .min(1, 'must be at least 1')
  .max(1_000_000, 'must be at most 1000000')
  .nullable()
  .describe(
    'Turns after which a session takes no more messages; null: as many as it likes. 422 for a terminal, which has no turns.',
  )

export const MaxCostUsd = z
  .number('must be a number of US dollars')
  .positive('must be more than 0')
  .max(1_000_000, 'must be at most 1000000')
  .nullable()
  .describe(
    'Cost in US dollars, as the gateway tells it, after which a session takes no more messages; null: no limit. The turn in which it is reached goes on to its end; a terminal’s calls of models are refused from then on.',
  )
