import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from '@jest/globals'
import { relayYieldMs } from '../domain/limits.ts'
import { paceRelay } from './relay-pace.ts'

const counted = () => {
  let kicks = 0
  const pace = paceRelay({ outbox: { kick: () => void kicks++ } })
  return { pace, kicks: () => kicks }
}

test('a create that is alone wakes the relay as soon as it is answered, once', () => {
  const { pace, kicks } = counted()
  const answered = pace.begin()
  expect(kicks()).toBe(0)
  answered()
  answered()
  expect(kicks()).toBe(1)
})

test('creates of a burst wake it when the last one is answered', async () => {
  const { pace, kicks } = counted()
  const [first, second, third] = [pace.begin(), pace.begin(), pace.begin()]
  first()
  second()
  expect(kicks()).toBe(0)
  third()
  expect(kicks()).toBe(1)
  await sleep(relayYieldMs + 100)
  expect(kicks()).toBe(1)
})

test('a burst without an end holds it up no longer than the limit', async () => {
  const { pace, kicks } = counted()
  pace.begin()
  pace.begin()()
  await sleep(relayYieldMs + 100)
  expect(kicks()).toBe(1)
})
