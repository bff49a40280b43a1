import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { pythonEnvironment } from './environment.ts'

/** A small package out of the pins of LiteLLM, in a cache of its own. */
const before = process.env['LAP_CACHE']
let cache: string
let requirements: string

beforeAll(() => {
  cache = process.env['LAP_CACHE'] = mkdtempSync(path.join(tmpdir(), 'lap-cache-'))
  const pins = readFileSync(fileURLToPath(new URL('requirements.txt', import.meta.url)), 'utf8')
  requirements = path.join(cache, 'requirements.txt')
  writeFileSync(requirements, /^idna==.*\n(?: .*\n)+/m.exec(pins)![0])
})
afterAll(() => {
  if (before === undefined) delete process.env['LAP_CACHE']
  else process.env['LAP_CACHE'] = before
  rmSync(cache, { recursive: true })
})

const make = async (said: string[] = []): Promise<string> =>
  pythonEnvironment({ name: 'small', requirements, package: 'idna' }, (text) => void said.push(text))
const folders = (): string[] => readdirSync(cache).filter((name) => name.startsWith('small'))

test('two that ask at once get one environment, made once', async () => {
  const said: string[] = []
  const [one, two] = await Promise.all([make(said), make(said)])
  expect(one).toBe(two)
  expect(said.filter((text) => text.startsWith('installing'))).toHaveLength(1)
  expect(folders()).toEqual([path.basename(one)])
  expect(await make(said)).toBe(one)
  expect(said.filter((text) => text.startsWith('installing'))).toHaveLength(1)
})

test.each([
  ['without its Python', (dir: string) => rmSync(path.join(dir, 'bin', 'python'))],
  ['without its packages', (dir: string) => rmSync(path.join(dir, 'lib'), { recursive: true })],
])('one %s is made anew, and what a build that was killed has left goes', async (_what, hurt) => {
  const dir = await make()
  hurt(dir)
  mkdirSync(`${dir}.4711`)
  // A builder that is gone holds nothing up.
  writeFileSync(`${dir}.lock`, '{"pid":1,"started":"long ago"}')
  const said: string[] = []
  expect(await make(said)).toBe(dir)
  expect(said).toContain('installing idna')
  expect(existsSync(path.join(dir, 'bin', 'python'))).toBe(true)
  expect(folders()).toEqual([path.basename(dir)])
})

test('a file that is not the pinned one is refused, and nothing half-made is taken for an environment', async () => {
  const text = readFileSync(requirements, 'utf8')
  writeFileSync(requirements, text.replaceAll(/sha256:\w+/g, `sha256:${'0'.repeat(64)}`))
  await expect(make()).rejects.toThrow(/HASH/i)
  writeFileSync(requirements, text)
  expect(folders().filter((name) => /^small-\w{16}$/.test(name))).toHaveLength(1)
})
