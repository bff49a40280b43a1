import { AppError, isAppError } from '../../domain/errors.ts'
import type { ErrorCode } from '../../domain/errors.ts'
import type { Context, Handler } from '../http.ts'

/** The only translation of errors to HTTP. */
export const STATUS_OF: Record<ErrorCode, number> = {
  bad_request: 400,
  unauthorized: 401,
  not_found: 404,
  conflict: 409,
  gone: 410,
  too_large: 413,
  invalid: 422,
  rate_limited: 429,
  upstream: 502,
  unavailable: 503,
  internal: 500,
}

/** An `AppError` whose machine code on the wire says more than its class, for instance how a turn failed. */
export class CodedError extends AppError {
  readonly wireCode: string
  readonly status: number
  constructor(code: ErrorCode, wireCode: string, message: string, status = STATUS_OF[code]) {
    super(code, message)
    this.wireCode = wireCode
    this.status = status
  }
}

const known = (error: unknown): AppError =>
  isAppError(error) ? error : new AppError('internal', 'Internal error', { cause: error })

/** The body of every error, and of error frames in streams. What is internal stays in the log. */
export const errorBody = (error: unknown, requestId: string) => {
  const { code, message, details, reason } = known(error)
  return {
    error: code === 'internal' ? 'Internal error' : message,
    code: error instanceof CodedError ? error.wireCode : (reason ?? code),
    ...(details === undefined ? {} : { details }),
    request_id: requestId,
  }
}

/** How an error is answered. */
export const answerOf = (error: unknown, requestId: string) => {
  const { code, retryAfterSeconds } = known(error)
  const headers: Record<string, string> = {}
  if (retryAfterSeconds !== undefined) headers['Retry-After'] = String(Math.max(1, Math.ceil(retryAfterSeconds)))
  if (code === 'unauthorized') headers['WWW-Authenticate'] = 'Bearer'
  const status = error instanceof CodedError ? error.status : STATUS_OF[code]
  return { status, headers, body: errorBody(error, requestId) }
}

const answer = (ctx: Context, error: unknown): void => {
  const { status, headers, body } = answerOf(error, ctx.state.requestId)
  ctx.status = status
  ctx.set(headers)
  ctx.body = body
}

/** Everything thrown below becomes `{error, code, details?, request_id}`; a path that nobody answered becomes our 404. */
export const errors: Handler = async (ctx, next) => {
  try {
    await next()
    if (ctx.status === 404 && ctx.body === undefined && ctx.respond !== false)
      throw new AppError('not_found', `no such path: ${ctx.method} ${ctx.path}`)
  } catch (error) {
    const { log } = ctx.state
    if (ctx.res.headersSent) {
      log.error({ err: error }, 'failed after the headers were sent')
      ctx.res.destroy()
      return
    }
    if (known(error).code === 'internal') log.error({ err: error }, 'request failed')
    answer(ctx, error)
  }
}
