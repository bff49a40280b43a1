import { mkdtemp, readFile, rm } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { createKeeper, endOrphans, type RunningPart, type StartPart } from './keeper.ts'
import { endProcess, isRunning, type ProcessRecord, startProcess } from './process.ts'

let dir: string
let started: ProcessRecord[]
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'lap-keeper-'))
  started = []
})
afterEach(async () => {
  await Promise.all(started.map((record) => endProcess(record, 'SIGKILL', 0)))
  await rm(dir, { recursive: true, force: true })
})

/** A process that lives until it is ended; `readyMs` after its start it is ready. */
const part =
  (readyMs = 0): StartPart =>
  async (onSpawn, signal) => {
    const { child, record } = await startProcess('sleep', ['600'], { onSpawn })
    started.push(record)
    const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
    const stop = (): Promise<void> => endProcess(record, 'SIGTERM', 1_000)
    try {
      await sleep(readyMs, undefined, { signal, ref: false })
    } catch (error) {
      await stop()
      throw error
    }
    return { record, exited, stop } satisfies RunningPart
  }

const recorded = async (): Promise<(ProcessRecord & { name: string })[]> =>
  JSON.parse(await readFile(path.join(dir, 'processes.json'), 'utf8'))

const until = async (isSo: () => boolean): Promise<void> => {
  for (const deadline = Date.now() + 10_000; !isSo(); await sleep(10))
    if (Date.now() > deadline) throw new Error('not within 10 s')
}

test('a part that ends is started again, until it is told to end', async () => {
  const said: string[] = []
  const keeper = createKeeper(dir, (text) => said.push(text))
  await keeper.start('part', part())
  process.kill(started[0]?.pid ?? 0, 'SIGKILL')
  await until(() => said.includes('part runs again'))
  expect(started).toHaveLength(2)
  expect(await recorded()).toEqual([{ name: 'part', ...started[1] }])
  await keeper.stop('part')
  await sleep(700)
  expect(started.filter(isRunning)).toEqual([])
  expect(started).toHaveLength(2)
  expect(await recorded()).toEqual([])
})

test('a process is recorded before it is ready, so that the next start can end what a kill (-9) leaves', async () => {
  const keeper = createKeeper(dir, () => {})
  const starting = keeper.start('part', part(60_000))
  starting.catch(() => {})
  await until(() => started.length === 1)
  expect(await recorded()).toEqual([{ name: 'part', ...started[0] }])
  expect(await endOrphans(dir)).toEqual(['part'])
  expect(started.filter(isRunning)).toEqual([])
})

test('a part that is told to end while it starts again leaves no process', async () => {
  const keeper = createKeeper(dir, () => {})
  let readyMs = 0
  await keeper.start('part', (onSpawn, signal) => part(readyMs)(onSpawn, signal))
  readyMs = 60_000
  process.kill(started[0]?.pid ?? 0, 'SIGKILL')
  await until(() => started.length === 2)
  await keeper.stop('part')
  expect(started.filter(isRunning)).toEqual([])
  expect(await recorded()).toEqual([])
})

test('a part that does not come up again makes the whole fail, after some tries', async () => {
  const keeper = createKeeper(dir, () => {}, 1)
  let tries = 0
  await keeper.start('part', (onSpawn, signal) => {
    if (tries++ > 0) return Promise.reject(new Error('no'))
    return part()(onSpawn, signal)
  })
  process.kill(started[0]?.pid ?? 0, 'SIGKILL')
  await expect(keeper.failed).rejects.toThrow('part ended 8 times in 5 minutes')
  expect(tries).toBe(8)
})
