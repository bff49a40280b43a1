import { expect, test } from '@jest/globals'
import { createLimiter } from './limiter.ts'

const timeOf = async (work: () => Promise<unknown>): Promise<number> => {
  const startedAt = performance.now()
  await work()
  return performance.now() - startedAt
}

test('a burst goes at once, what is over it waits for its turn', async () => {
  const limiter = createLimiter({ perSecond: 100, burst: 5 })
  const take = (count: number) => timeOf(() => Promise.all(Array.from({ length: count }, () => limiter.take())))
  expect(await take(5)).toBeLessThan(8)
  const waited = await take(10)
  expect(waited).toBeGreaterThan(80)
  expect(waited).toBeLessThan(400)
})

test('nobody sends while the server wants a pause', async () => {
  const limiter = createLimiter({ perSecond: 1_000, burst: 100 })
  limiter.pause(60)
  expect(await timeOf(() => limiter.take())).toBeGreaterThan(50)
})

test('whoever gives up waiting is let go', async () => {
  const limiter = createLimiter({ perSecond: 1, burst: 1 })
  await limiter.take()
  await expect(limiter.take(AbortSignal.timeout(20))).rejects.toThrow()
})
