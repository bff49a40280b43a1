import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from '@jest/globals'
import { Context } from '@temporalio/activity'
import { MockActivityEnvironment } from '@temporalio/testing'
import { withHeartbeat } from './heartbeat.ts'

const ignore = (): void => undefined
const logger = { trace: ignore, debug: ignore, info: ignore, warn: ignore, error: ignore, log: ignore }
const environmentOf = (): MockActivityEnvironment => new MockActivityEnvironment({}, { logger })

test('the server is told at each interval that the activity lives, and no longer than it lives', async () => {
  const environment = environmentOf()
  let beats = 0
  environment.on('heartbeat', () => beats++)
  const result = await environment.run(() =>
    withHeartbeat(10, async () => {
      await sleep(100)
      return 'done'
    }),
  )
  expect(result).toBe('done')
  const beatsAtEnd = beats
  expect(beatsAtEnd).toBeGreaterThanOrEqual(3)
  await sleep(50)
  expect(beats).toBe(beatsAtEnd)
})

test('a failure is the failure', async () => {
  const environment = environmentOf()
  const failing = environment.run(() => withHeartbeat(10, () => Promise.reject(new Error('no'))))
  await expect(failing).rejects.toThrow('no')
})

test('what fails because it was cancelled is cancelled, whatever the error says', async () => {
  const environment = environmentOf()
  const running = environment.run(() =>
    withHeartbeat(10, async () => {
      await sleep(10_000, undefined, { signal: Context.current().cancellationSignal })
    }),
  )
  await sleep(20)
  environment.cancel('CANCELLED')
  await expect(running).rejects.toMatchObject({ name: 'CancelledFailure' })
})

test('what ended in spite of a cancellation has ended', async () => {
  const environment = environmentOf()
  const running = environment.run(() => withHeartbeat(10, () => sleep(50, 'in time')))
  environment.cancel('CANCELLED')
  expect(await running).toBe('in time')
})
