import { ApplicationFailure, TemporalFailure } from '@temporalio/common'
import type { ErrorCode } from '../domain/errors.ts'
import { errorText, isAppError } from '../domain/errors.ts'
import type { FailureCode } from '../domain/session.ts'
import type { SandboxFailure } from '../sandbox/driver.ts'
import { isSupervisorUnreachable } from '../sandbox/supervisor-calls.ts'

/** Codes that another try may cure. */
const RETRYABLE = new Set<ErrorCode>(['unavailable', 'rate_limited', 'upstream', 'internal'])

/** Details of a `SandboxFailed`. */
export type StartFailure = { code: FailureCode; message: string }

/** A sandbox will not start; the workflow decides by the code whether another one might. */
export const sandboxFailure = ({ code, message }: StartFailure | SandboxFailure): ApplicationFailure =>
  ApplicationFailure.create({
    type: 'SandboxFailed',
    message: `${code}: ${message}`.slice(0, 2_000),
    nonRetryable: true,
    details: [{ code, message: message.slice(0, 2_000) } satisfies StartFailure],
  })

/** What went wrong, in the platform's words, to Temporal: is it worth a retry? Anything unknown is tried again, and seen in the UI. */
export const toFailure = (error: unknown): Error => {
  if (error instanceof TemporalFailure) return error
  if (isAppError(error))
    return ApplicationFailure.create({
      type: error.code,
      message: error.message,
      nonRetryable: !RETRYABLE.has(error.code),
      ...(error.retryAfterSeconds === undefined ? {} : { nextRetryDelay: error.retryAfterSeconds * 1_000 }),
    })
  if (isSupervisorUnreachable(error))
    return ApplicationFailure.create({ type: 'SupervisorUnreachable', message: error.message, cause: error })
  if (Error.isError(error)) return error
  return ApplicationFailure.create({ type: 'Unknown', message: errorText(error) })
}
