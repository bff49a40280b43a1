import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from '@jest/globals'
import { createRestarter } from './restarter.ts'

/** A harness whose next starts succeed or not, as told. */
const world = (...outcomes: boolean[]) => {
  const told: string[] = []
  const restarter = createRestarter({
    async start() {
      await sleep(5)
      told.push('start')
      if (outcomes.shift() === false) throw new Error('does not start')
    },
    onRestarted: () => void told.push('restarted'),
    log: () => undefined,
  })
  return { restarter, told }
}

test('a harness that dies is started again before a turn asks for it', async () => {
  const { restarter, told } = world()
  restarter.died()
  expect(restarter.isUp()).toBe(false)
  await sleep(30)
  expect([restarter.isUp(), restarter.count(), told]).toEqual([true, 1, ['start', 'restarted']])
  await restarter.needed()
  expect(restarter.count()).toBe(1)
})

test('one that dies again without having had a turn is started by the next turn, not for ever', async () => {
  const { restarter, told } = world()
  restarter.died()
  await sleep(30)
  restarter.died()
  await sleep(30)
  expect([restarter.isUp(), told]).toEqual([false, ['start', 'restarted']])
  await restarter.needed()
  expect([restarter.isUp(), restarter.count()]).toEqual([true, 2])
})

test('a turn that needs it waits for the start under way, tries once more if that fails, and then fails itself', async () => {
  const { restarter, told } = world(false, true)
  restarter.died()
  await sleep(0)
  await Promise.all([restarter.needed(), restarter.needed()])
  expect(told).toEqual(['start', 'start', 'restarted'])

  const hopeless = world(false, false)
  hopeless.restarter.died()
  await sleep(0)
  await expect(hopeless.restarter.needed()).rejects.toThrow('does not start')
  expect(hopeless.told).toEqual(['start', 'start'])
})
