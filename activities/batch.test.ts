import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from '@jest/globals'
import { batches } from './batch.ts'

const collect = async <T>(groups: AsyncIterable<T[]>): Promise<T[][]> => {
  const all: T[][] = []
  for await (const group of groups) all.push(group)
  return all
}

/** Yields these; a number of milliseconds before each. */
async function* paced<T>(...items: [number, T][]): AsyncGenerator<T> {
  for (const [ms, item] of items) {
    if (ms > 0) await sleep(ms)
    yield item
  }
}

test('the first item after a pause goes on at once', async () => {
  const release = Promise.withResolvers<void>()
  async function* source() {
    yield 1
    await release.promise
    yield 2
  }
  const groups = batches(source(), { everyMs: 60_000, max: 10 })
  expect(await groups.next()).toEqual({ done: false, value: [1] })
  release.resolve()
})

test('what comes fast is collected', async () => {
  const groups = await collect(batches(paced([0, 1], [0, 2], [0, 3], [0, 4]), { everyMs: 50, max: 10 }))
  expect(groups.flat()).toEqual([1, 2, 3, 4])
  expect(groups.length).toBeLessThan(4)
})

test('what comes slowly is not held back', async () => {
  const groups = await collect(batches(paced([0, 1], [120, 2], [120, 3]), { everyMs: 10, max: 10 }))
  expect(groups).toEqual([[1], [2], [3]])
})

test('nothing is lost or reordered, and no group is larger than the most', async () => {
  const items = Array.from({ length: 500 }, (_, i) => i)
  const groups = await collect(batches(paced(...items.map((i): [number, number] => [0, i])), { everyMs: 5, max: 7 }))
  expect(groups.flat()).toEqual(items)
  expect(Math.max(...groups.map(({ length }) => length))).toBeLessThanOrEqual(7)
})

test('a stream that ends within a group gives what it had', async () => {
  expect((await collect(batches(paced([0, 1], [0, 2]), { everyMs: 1_000, max: 10 }))).flat()).toEqual([1, 2])
  expect(await collect(batches(paced<number>(), { everyMs: 1, max: 1 }))).toEqual([])
})

test('a stream that fails gives what came before, then fails', async () => {
  async function* source() {
    yield 1
    yield 2
    throw new Error('cut')
  }
  const seen: number[] = []
  const read = async (): Promise<void> => {
    for await (const group of batches(source(), { everyMs: 20, max: 10 })) seen.push(...group)
  }
  await expect(read()).rejects.toThrow('cut')
  expect(seen).toEqual([1, 2])
})

test('a stream that fails while a group is being written fails at the next one, and nowhere else', async () => {
  async function* source() {
    yield 1
    throw new Error('cut')
  }
  const groups = batches(source(), { everyMs: 1, max: 10 })
  expect((await groups.next()).value).toEqual([1])
  await sleep(20)
  await expect(groups.next()).rejects.toThrow('cut')
})

test('the stream is closed when nobody wants more of it', async () => {
  let closed = false
  async function* source() {
    try {
      for (let i = 0; ; i++) yield i
    } finally {
      closed = true
    }
  }
  for await (const group of batches(source(), { everyMs: 1, max: 3 })) if (group.includes(2)) break
  expect(closed).toBe(true)
})

test('whoever has enough does not wait for a stream that says nothing more', async () => {
  async function* silent(): AsyncGenerator<number> {
    yield 1
    await new Promise(() => {})
  }
  for await (const group of batches(silent(), { everyMs: 5, max: 10 })) {
    expect(group).toEqual([1])
    break
  }
})
