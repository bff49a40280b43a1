import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { pauseImage } from '../../tools/image/images.ts'

/** A cache of its own, with the compiled standard library of the machine's. */
let cache: string
const before = process.env['LAP_CACHE']
beforeAll(async () => {
  cache = await mkdtemp(path.join(os.tmpdir(), 'lap-images-'))
  process.env['LAP_CACHE'] = cache
})
afterAll(async () => {
  if (before === undefined) delete process.env['LAP_CACHE']
  else process.env['LAP_CACHE'] = before
  await rm(cache, { recursive: true, force: true })
})

test('an image that is asked for twice at once is made once, and what a killed build has left goes', async () => {
  const images = path.join(cache, 'images')
  for (const left of ['pause-aBcDeF', 'pause-0123.tar.layout-aBcDeF'])
    await mkdir(path.join(images, left, 'rootfs'), { recursive: true })
  await writeFile(path.join(images, 'other-0123.tar'), 'of another one')
  const said: string[] = []
  const say = (text: string): void => void said.push(text)
  const [first, second] = await Promise.all([pauseImage(say), pauseImage(say)])
  expect(first).toEqual(second)
  expect(said).toEqual([expect.stringContaining('another process')])
  expect((await readdir(images)).toSorted()).toEqual(['other-0123.tar', path.basename(first.file)].toSorted())
}, 300_000)
