/** What may go wrong, in the platform's own words. Each edge translates once: `api/middleware/errors.ts` to HTTP, `activities/failure.ts` to Temporal. */
export type ErrorCode =
  | 'bad_request'
  | 'unauthorized'
  | 'not_found'
  | 'conflict'
  | 'gone'
  | 'too_large'
  | 'invalid'
  | 'rate_limited'
  | 'upstream'
  | 'unavailable'
  | 'internal'

export type ErrorDetail = { path: string; message: string }

/** An error whose message may be shown to the user. Anything else is `internal`: logged in full, shown as "Internal error". */
export class AppError extends Error {
  override name = 'AppError'
  readonly code: ErrorCode
  readonly details: ErrorDetail[] | undefined
  /** For programs, more exact than `code`: what goes on the wire in its place. */
  readonly reason: string | undefined
  /** Seconds after which a retry makes sense; sent as `Retry-After`. */
  readonly retryAfterSeconds: number | undefined

  constructor(
    code: ErrorCode,
    message: string,
    options: { details?: ErrorDetail[]; reason?: string; retryAfterSeconds?: number; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.details = options.details
    this.reason = options.reason
    this.retryAfterSeconds = options.retryAfterSeconds
  }
}

export const isAppError = (error: unknown): error is AppError => Error.isError(error) && error.name === 'AppError'

/** Text of anything thrown, for a log line or a stored reason. */
export const errorText = (error: unknown): string => (Error.isError(error) ? error.message : String(error))
