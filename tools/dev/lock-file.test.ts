import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { withBuildLock } from './cache.ts'
import { takeLockFile } from './lock-file.ts'
import { type ProcessRecord, recordOf } from './process.ts'

let dir: string
let file: string
beforeEach(async () => {
  dir = await mkdtemp(path.join(os.tmpdir(), 'lap-lock-'))
  file = path.join(dir, 'lock.json')
})
afterEach(async () => rm(dir, { recursive: true, force: true }))

const gone = async (): Promise<ProcessRecord> => {
  const child = spawn('sleep', ['60'])
  const record = recordOf(child.pid ?? 0)
  child.kill('SIGKILL')
  await once(child, 'exit')
  if (record === null) throw new Error('no process')
  return record
}

test('a lock is of one at a time, who is named to the others, and free when it is given back', async () => {
  expect(await takeLockFile(file)).toBeNull()
  expect(await takeLockFile(file)).toEqual(recordOf(process.pid))
  await rm(file)
  expect(await takeLockFile(file)).toBeNull()
  expect(await readdir(dir)).toEqual(['lock.json'])
})

test.each([
  ['of a process that is gone', async () => JSON.stringify(await gone())],
  ['of an id that is another process’ by now', async () => JSON.stringify({ pid: process.pid, started: 'before' })],
  ['that was written half', async () => '{"pid": 1'],
])('a lock %s is taken over by one of all who come', async (_what, left) => {
  for (let round = 0; round < 20; round++) {
    await writeFile(file, await left())
    const taken = await Promise.all(Array.from({ length: 10 }, () => takeLockFile(file)))
    expect(taken.filter((holder) => holder === null)).toHaveLength(1)
    expect(JSON.parse(await readFile(file, 'utf8'))).toEqual(recordOf(process.pid))
  }
  expect(await readdir(dir)).toEqual(['lock.json'])
})

test('of those who build at the same time one works, and the others wait and are told so once', async () => {
  let working = 0
  let waited = 0
  const works: number[] = []
  const build = (): Promise<void> =>
    withBuildLock(
      file,
      () => waited++,
      async () => {
        works.push(++working)
        await new Promise((resolve) => setTimeout(resolve, 50))
        working--
      },
    )
  await Promise.all([build(), build(), build()])
  expect({ works, waited }).toEqual({ works: [1, 1, 1], waited: 2 })
  await expect(
    withBuildLock(
      file,
      () => {},
      () => Promise.reject(new Error('no')),
    ),
  ).rejects.toThrow('no')
  expect(await readdir(dir)).toEqual([])
})
