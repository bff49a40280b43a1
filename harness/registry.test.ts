import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, expect, test } from '@jest/globals'
import { findHarnesses } from './registry.ts'

const world = mkdtempSync(path.join(tmpdir(), 'lap-harnesses-'))
afterAll(() => rmSync(world, { recursive: true, force: true }))

/** A folder with one harness folder in it. */
const folderWith = (name: string, manifest: string): string => {
  const folder = mkdtempSync(path.join(world, 'path-'))
  mkdirSync(path.join(folder, name))
  mkdirSync(path.join(folder, 'no-harness'))
  writeFileSync(path.join(folder, name, 'manifest.ts'), manifest)
  return folder
}

test('the harnesses of this repository are found', async () => {
  const found = await findHarnesses([])
  expect(found).toContainEqual({
    id: 'opencode',
    name: 'opencode',
    supportsTui: expect.any(Boolean),
    dir: path.join(import.meta.dirname, 'opencode'),
  })
})

test('harnesses of further folders come with them, by id', async () => {
  const folder = folderWith('mine', `export default { id: 'mine', name: 'My own', supportsTui: true }`)
  const bench = path.join(import.meta.dirname, '../bench/harness')
  const found = await findHarnesses([folder, folder, bench])
  expect(found.map(({ id }) => id)).toEqual(found.map(({ id }) => id).toSorted())
  expect(found).toContainEqual({ id: 'mine', name: 'My own', supportsTui: true, dir: path.join(folder, 'mine') })
  expect(found.map(({ id }) => id)).toContain('light')
})

test('a folder that is missing, or a manifest that is wrong, is said', async () => {
  await expect(findHarnesses([path.join(world, 'none')])).rejects.toThrow('none cannot be read')
  await expect(findHarnesses([folderWith('a', 'export default {}')])).rejects.toThrow('no default export with an id')
  await expect(findHarnesses([folderWith('a', 'export default { id: "b" }')])).rejects.toThrow('has the id "b"')
  await expect(findHarnesses([folderWith('a', 'throw new Error("broken")')])).rejects.toThrow('broken')
})

test('two harnesses of one id are refused', async () => {
  const one = () => folderWith('twin', `export default { id: 'twin', name: 'Twin', supportsTui: false }`)
  await expect(findHarnesses([one(), one()])).rejects.toThrow('two harnesses have the id "twin"')
})
