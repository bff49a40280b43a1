import { expect, test } from '@jest/globals'
import { createLimiter } from './limiter.ts'

const timeOf = async (work: () => Promise<unknown>): Promise<number> => {
  const startedAt = performance.now()
  await work()
  return performance.now() - startedAt
}

test('a burst goes at once, what is over it waits for its turn', async () => {
  const limiter = createLimiter({ perSecond: 100, burst: 5, atOnce: 100 })
  const take = (count: number) => timeOf(() => Promise.all(Array.from({ length: count }, () => limiter.enter())))
  expect(await take(5)).toBeLessThan(8)
  const waited = await take(10)
  expect(waited).toBeGreaterThan(80)
  expect(waited).toBeLessThan(400)
})

test('nobody sends while the server wants a pause', async () => {
  const limiter = createLimiter({ perSecond: 1_000, burst: 100, atOnce: 100 })
  limiter.pause(60)
  expect(await timeOf(() => limiter.enter())).toBeGreaterThan(50)
})

test('no more are under way than may be, and each that is over lets the next one go', async () => {
  const limiter = createLimiter({ perSecond: 1_000, burst: 1_000, atOnce: 2 })
  const [first] = await Promise.all([limiter.enter(), limiter.enter()])
  const order: number[] = []
  const third = limiter.enter().then(() => order.push(3))
  const fourth = limiter.enter().then(() => order.push(4))
  await new Promise((resolve) => setTimeout(resolve, 30))
  expect(order).toEqual([])
  first()
  first()
  await third
  await new Promise((resolve) => setTimeout(resolve, 30))
  expect(order).toEqual([3])
  void fourth
})

test('whoever gives up waiting takes nothing from those behind', async () => {
  const limiter = createLimiter({ perSecond: 20, burst: 1, atOnce: 100 })
  await limiter.enter()
  const impatient = Array.from({ length: 50 }, () => limiter.enter(AbortSignal.timeout(20)))
  const patient = timeOf(() => limiter.enter())
  const given = (await Promise.allSettled(impatient)).filter(({ status }) => status === 'rejected')
  expect(given.length).toBeGreaterThan(45)
  // Two and a half seconds, had each of them kept its place.
  expect(await patient).toBeLessThan(1_000)
})

test('a signal that is over already is refused', async () => {
  const limiter = createLimiter({ perSecond: 1, burst: 1, atOnce: 1 })
  await expect(limiter.enter(AbortSignal.abort(new Error('over')))).rejects.toThrow('over')
  await limiter.enter()
})
