import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, expect, test } from '@jest/globals'
import { createHarnessPackages } from './harness-packages.ts'

const world = mkdtempSync(path.join(tmpdir(), 'lap-packages-'))
afterAll(() => rmSync(world, { recursive: true, force: true }))

/** A harness folder whose one package is a tarball beside it, so that no registry is asked; each install adds a line to `installs`. */
const harness = (): string => {
  const dir = mkdtempSync(path.join(world, 'harness-'))
  const source = path.join(dir, 'tool')
  mkdirSync(source)
  writeFileSync(path.join(source, 'package.json'), JSON.stringify({ name: 'tool', version: '1.2.3' }))
  const npm = (...args: string[]): Buffer => execFileSync('npm', [...args, '--no-audit', '--no-fund'], { cwd: dir })
  npm('pack', './tool')
  const postinstall = `node -e "require('fs').appendFileSync('installs','one\\n')"`
  const dependencies = { tool: 'file:tool-1.2.3.tgz' }
  writeFileSync(
    path.join(dir, 'package.json'),
    JSON.stringify({ name: 'h', private: true, dependencies, scripts: { postinstall } }),
  )
  npm('install', '--package-lock-only', '--ignore-scripts')
  return dir
}
const installs = (dir: string): number => {
  const file = path.join(dir, 'installs')
  return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n').length : 0
}
const nothing = (): void => undefined

test('packages are installed when they are first needed, once for all who need them, and it is said', async () => {
  const dir = harness()
  const said: string[] = []
  let told = 0
  const ours = createHarnessPackages((text) => said.push(text), process.env)
  const others = createHarnessPackages(nothing, process.env)
  await Promise.all([ours.ensure(dir, () => told++), ours.ensure(dir, () => told++), others.ensure(dir, nothing)])
  expect(existsSync(path.join(dir, 'node_modules/tool/package.json'))).toBe(true)
  expect({ installs: installs(dir), told }).toEqual({ installs: 1, told: 2 })
  expect(said[0]).toContain(`installing the packages of the harness ${path.basename(dir)}`)
  await ours.ensure(dir, () => told++)
  expect({ installs: installs(dir), told }).toEqual({ installs: 1, told: 2 })
}, 120_000)

test('an install that was cut off is made again, also when whoever began it is dead', async () => {
  const dir = harness()
  const packages = createHarnessPackages(nothing, process.env)
  await packages.ensure(dir, nothing)
  rmSync(path.join(dir, 'node_modules/.package-lock.json'))
  writeFileSync(path.join(dir, '.installing'), JSON.stringify({ pid: 2 ** 22 - 1, startTime: 'then' }))
  await packages.ensure(dir, nothing)
  expect(installs(dir)).toBe(2)
  expect(existsSync(path.join(dir, '.installing'))).toBe(false)
}, 120_000)

test('install scripts see how to reach the internet, and nothing of the keys of the platform', async () => {
  const dir = harness()
  const manifest = path.join(dir, 'package.json')
  const postinstall = `node -e "require('fs').writeFileSync('seen.json',JSON.stringify(process.env))"`
  const telling = { ...(JSON.parse(readFileSync(manifest, 'utf8')) as object), scripts: { postinstall } }
  writeFileSync(manifest, JSON.stringify(telling))
  const secrets = { MASTER_KEY: 'secret-1', DATABASE_URL: 'secret-2', LITELLM_API_KEY: 'secret-3' }
  const needed = { https_proxy: 'http://127.0.0.1:1', npm_config_fetch_timeout: '4711' }
  const packages = createHarnessPackages(nothing, { ...process.env, ...secrets, ...needed })
  await packages.ensure(dir, nothing)
  const seen = readFileSync(path.join(dir, 'seen.json'), 'utf8')
  expect(seen).not.toContain('secret-')
  expect(JSON.parse(seen)).toMatchObject(needed)
}, 120_000)

test('what npm says of a failed install is passed on, and nobody waits for it any more', async () => {
  const dir = harness()
  const manifest = path.join(dir, 'package.json')
  const broken = {
    ...(JSON.parse(readFileSync(manifest, 'utf8')) as object),
    scripts: { postinstall: 'echo no disk; exit 7' },
  }
  writeFileSync(manifest, JSON.stringify(broken))
  const packages = createHarnessPackages(nothing, process.env)
  await expect(packages.ensure(dir, nothing)).rejects.toThrow(/npm ci in .* ended with 7:[\s\S]*no disk/)
  expect(existsSync(path.join(dir, '.installing'))).toBe(false)
}, 120_000)

test('a harness may use the packages of another one', async () => {
  const dir = harness()
  const other = mkdtempSync(path.join(world, 'other-'))
  const lap = { packages: path.join('..', path.basename(dir)) }
  writeFileSync(path.join(other, 'package.json'), JSON.stringify({ name: 'other', lap }))
  const said: string[] = []
  await createHarnessPackages((text) => said.push(text), process.env).ensure(other, nothing)
  expect(said[0]).toContain(`installing the packages of the harness ${path.basename(dir)}`)
  expect({ installs: installs(dir), own: existsSync(path.join(other, 'node_modules')) }).toEqual({
    installs: 1,
    own: false,
  })
}, 120_000)

test('a harness without packages needs nothing', async () => {
  await createHarnessPackages(nothing, process.env).ensure(mkdtempSync(path.join(world, 'plain-')), () => {
    throw new Error('told of an install')
  })
})
