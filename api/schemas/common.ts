import { z } from 'zod'
import { pageSizeDefault, pageSizeMax } from '../../domain/limits.ts'

/** An object that names what it allows when it is given something else. */
export const strict = <S extends z.core.$ZodShape>(shape: S) =>
  z.strictObject(shape, {
    error: (issue) =>
      issue.code === 'unrecognized_keys' ? `unknown field; allowed here: ${Object.keys(shape).join(', ')}` : undefined,
  })

export const Id = z.string().meta({ format: 'uuid' })
export const Time = z.string().meta({ format: 'date-time' })
export const Json = z.record(z.string(), z.unknown())

/** A whole number in a query. */
const number = (min: number, max: number) =>
  z.coerce
    .number({ error: 'must be a whole number' })
    .int('must be a whole number')
    .min(min, `must be at least ${min}`)
    .max(max, `must be at most ${max}`)

export const Limit = number(1, pageSizeMax).default(pageSizeDefault)
export const Offset = number(0, 1_000_000).default(0)
export const queryNumber = number

export const ErrorBody = z
  .object({
    error: z.string().describe('A sentence for people.'),
    code: z
      .string()
      .describe(
        'For programs: bad_request, unauthorized, not_found, method_not_allowed, conflict, gone, too_large, invalid, rate_limited, upstream, unavailable, internal; for a turn that did not end well turn_interrupted, turn_cancelled, or why it failed (harness_exited, gateway_unreachable, harness_error).',
      ),
    details: z
      .array(z.object({ path: z.string(), message: z.string() }))
      .optional()
      .describe('Every fault of the request, with its path.'),
    request_id: z.string(),
  })
  .meta({ id: 'Error' })
