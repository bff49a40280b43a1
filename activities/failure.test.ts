import { describe, expect, test } from '@jest/globals'
import { type ApplicationFailure, CancelledFailure } from '@temporalio/common'
import { AppError, type ErrorCode } from '../domain/errors.ts'
import { SupervisorUnreachable } from '../sandbox/supervisor-calls.ts'
import { sandboxFailure, toFailure } from './failure.ts'

describe('what is worth another try', () => {
  test.each<[ErrorCode, boolean]>([
    ['unavailable', true],
    ['rate_limited', true],
    ['upstream', true],
    ['internal', true],
    ['not_found', false],
    ['conflict', false],
    ['gone', false],
    ['invalid', false],
  ])('%s: %s', (code, again) => {
    expect(toFailure(new AppError(code, 'why'))).toMatchObject({
      name: 'ApplicationFailure',
      type: code,
      message: 'why',
      nonRetryable: !again,
    })
  })

  test('a server that says when to come again is taken at its word', () => {
    const failure = toFailure(new AppError('rate_limited', 'full', { retryAfterSeconds: 3 }))
    expect(failure).toMatchObject({ nonRetryable: false, nextRetryDelay: 3_000 })
  })

  test('a supervisor that does not answer is tried again', () => {
    const failure = toFailure(new SupervisorUnreachable('no answer'))
    expect(failure).toMatchObject({ type: 'SupervisorUnreachable', message: 'no answer' })
    expect((failure as ApplicationFailure).nonRetryable).not.toBe(true)
  })

  test('what nobody knows is tried again, as it is', () => {
    const unknown = new TypeError('a bug')
    expect(toFailure(unknown)).toBe(unknown)
    expect(toFailure('thrown text')).toMatchObject({ type: 'Unknown', message: 'thrown text' })
  })

  test('Temporal’s own failures go through untouched', () => {
    const cancelled = new CancelledFailure('cancelled')
    expect(toFailure(cancelled)).toBe(cancelled)
  })
})

test('a sandbox that will not start says its code in the details, once and for all', () => {
  const failure = sandboxFailure({ code: 'clone_failed', message: 'x'.repeat(5_000) })
  expect(failure).toMatchObject({ type: 'SandboxFailed', nonRetryable: true })
  expect(failure.message.length).toBe(2_000)
  expect(failure.details).toEqual([{ code: 'clone_failed', message: 'x'.repeat(2_000) }])
})
