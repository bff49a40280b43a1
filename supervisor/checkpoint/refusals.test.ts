import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { checkpointMaxBytes, checkpointUnpackedMaxBytes } from '../../domain/limits.ts'
import { type TarEntry, archiveOf, refusedRestore, restoreCheckpoint } from '../../test/checkpoint.ts'
import { type TestSupervisor, makeRepository, startSupervisor } from '../../test/supervisor.ts'
import { leadsOut } from './paths.ts'

let repo_url: string
let sandbox: TestSupervisor
let base: string

beforeAll(async () => {
  repo_url = makeRepository({ 'README.md': 'hello\n', 'src/a.txt': 'a\n' })
  base = execFileSync('git', ['rev-parse', 'HEAD'], { cwd: repo_url.slice('file://'.length), encoding: 'utf8' }).trim()
  sandbox = startSupervisor({ harness: 'light', purpose: 'session', repo_url })
  await sandbox.until('booted')
})
afterAll(async () => {
  await sandbox[Symbol.asyncDispose]()
  rmSync(repo_url.slice('file://'.length), { recursive: true })
})

const plan = (change: object = {}): TarEntry => ({
  name: 'checkpoint.json',
  body: JSON.stringify({
    version: 1,
    harness: { id: 'light' },
    conversation: 'ses_1',
    workspace: '/elsewhere',
    base_commit: base,
    deleted: [],
    git: null,
    ...change,
  }),
})
const file = (name: string, body = 'x'): TarEntry => ({ name, body })
const link = (name: string, linkpath: string): TarEntry => ({ name, body: '', type: 'SymbolicLink', linkpath })
/** Everything below the sandbox' directory, but its log and state. */
const everything = (): string =>
  execFileSync('find', ['workspace', 'home', '-printf', '%p %l %s\n'], {
    cwd: sandbox.dir,
    encoding: 'utf8',
  })

const hostile: [string, TarEntry[]][] = [
  ['a path that goes up', [plan(), file('workspace/../escaped.txt')]],
  ['a path that goes up out of the conversation', [plan(), file('conversation/../../home/.bashrc')]],
  ['an absolute path', [plan(), file('/tmp/lap-escaped.txt')]],
  ['a path with an empty part', [plan(), file('workspace//a')]],
  ['a file of nothing known', [plan(), file('home/.bashrc')]],
  ['git’s own files', [plan(), file('workspace/.git/hooks/post-checkout')]],
  ['git’s own files by another name', [plan(), file('workspace/.GIT/config')]],
  ['an absolute link', [plan(), link('workspace/l', '/etc/passwd')]],
  ['a link that goes up too far', [plan(), link('workspace/sub/l', '../../x')]],
  ['a link that goes up behind another one', [plan(), link('workspace/sub/l', 'a/../../..')]],
  ['a link outside of the workspace', [plan(), link('conversation/l', 'x')]],
  ['a file below a link', [plan(), link('workspace/l', 'src'), file('workspace/l/a.txt')]],
  ['a hard link', [plan(), { name: 'workspace/l', body: '', type: 'Link', linkpath: 'workspace/README.md' }]],
  ['a device', [plan(), { name: 'workspace/d', body: '', type: 'CharacterDevice' }]],
  ['a pipe', [plan(), { name: 'workspace/p', body: '', type: 'FIFO' }]],
  ['the same file twice', [plan(), file('workspace/a'), file('workspace/a')]],
  ['a deleted file outside', [plan({ deleted: ['../../outside'] })]],
  ['a branch that is none', [plan({ git: { head: '--exec=x', refs: [], index: null, needs: [] } })]],
  ['a commit that is none', [plan({ base_commit: '--upload-pack=touch x' })]],
  ['another version', [plan({ version: 2 })]],
  ['no plan at its begin', [file('workspace/a'), plan()]],
  ['nothing', []],
]

test.each(hostile)('an archive with %s is refused, and nothing of it is applied', async (_, entries) => {
  const before = everything()
  expect(await refusedRestore(sandbox, randomUUID(), archiveOf(entries))).toMatchObject({
    status: 422,
    code: 'invalid',
  })
  expect(everything()).toBe(before)
})

test('what is no archive, breaks off or is damaged is refused', async () => {
  const whole = archiveOf([plan(), file('workspace/a.txt', 'x'.repeat(100_000))])
  const damaged = Buffer.from(whole)
  damaged[damaged.length >> 1]! ^= 0xff
  for (const archive of [Buffer.from('no archive'), Buffer.alloc(0), whole.subarray(0, whole.length - 40), damaged])
    expect(await refusedRestore(sandbox, randomUUID(), Buffer.from(archive))).toMatchObject({ status: 422 })
  expect(readdirSync(path.join(sandbox.dir, 'checkpoints'))).toEqual([])
})

test('an upload above the limit is refused with 413', async () => {
  const archive = Buffer.alloc(checkpointMaxBytes + 1)
  expect(await refusedRestore(sandbox, randomUUID(), archive)).toMatchObject({ status: 413, code: 'too_large' })
}, 180_000)

test('an id that is none is refused by the name of its header', async () => {
  expect(await refusedRestore(sandbox, 'one', archiveOf([plan()]))).toMatchObject({
    status: 422,
    message: expect.stringContaining('x-lap-checkpoint-id'),
  })
})

test('links of the repository are not written through', async () => {
  const outside = mkdtempSync(path.join(tmpdir(), 'lap-outside-'))
  const source = makeRepository({ 'README.md': 'x\n' })
  const cwd = source.slice('file://'.length)
  execFileSync('ln', ['-s', outside, 'out'], { cwd })
  execFileSync('git', ['-c', 'user.name=t', '-c', 'user.email=t@example.com', 'add', '.'], { cwd })
  execFileSync('git', ['-c', 'user.name=t', '-c', 'user.email=t@example.com', 'commit', '--quiet', '-m', 'link'], {
    cwd,
  })
  writeFileSync(path.join(outside, 'kept.txt'), 'kept')
  await using other = startSupervisor({ harness: 'light', purpose: 'session', repo_url: source })
  await other.until('booted')
  const archive = archiveOf([
    plan({ base_commit: null, deleted: ['out/kept.txt'] }),
    file('workspace/out/in.txt', 'in'),
  ])
  await restoreCheckpoint(other, randomUUID(), archive)
  expect(readdirSync(outside)).toEqual(['kept.txt'])
  expect(readFileSync(path.join(other.dir, 'workspace', 'out', 'in.txt'), 'utf8')).toBe('in')
  for (const folder of [outside, cwd]) rmSync(folder, { recursive: true })
})

test('a supervisor that is killed while it restores leaves nothing that the same checkpoint does not put right', async () => {
  const [id, dir, sandbox_id] = [randomUUID(), mkdtempSync(path.join(tmpdir(), 'lap-sandbox-')), randomUUID()]
  const names = Array.from({ length: 5_000 }, (_, i) => `many/${i % 50}/${i}.txt`)
  const archive = archiveOf([plan({ base_commit: null }), ...names.map((name) => file(`workspace/${name}`, name))])
  const options = { harness: 'light', purpose: 'session', dir, sandbox_id } as const
  const killed = startSupervisor(options)
  await killed.until('booted')
  const broken = restoreCheckpoint(killed, id, archive)
  broken.catch(() => undefined)
  while (!existsSync(path.join(dir, 'workspace', 'many'))) await sleep(1)
  killed.process.kill('SIGKILL')
  await killed.exited
  await expect(broken).rejects.toHaveProperty('message')
  rmSync(path.join(dir, 'state.json'))
  await using other = startSupervisor(options)
  await other.until('booted')
  expect(await restoreCheckpoint(other, id, archive)).toMatchObject({ files: names.length, problems: [] })
  for (const name of names) expect(readFileSync(path.join(dir, 'workspace', name), 'utf8')).toBe(name)
  expect(readdirSync(path.join(dir, 'checkpoints'))).toEqual([])
}, 180_000)

test('a bomb is refused while it is read', async () => {
  const zeros = gzipSync(Buffer.alloc(64 * 1_024 * 1_024))
  const big = { ...file('workspace/zeros'), size: 2 * checkpointUnpackedMaxBytes }
  const bomb = Buffer.concat([
    archiveOf([plan()], { open: true }),
    archiveOf([big], { open: true, bodiless: true }),
    ...Array.from({ length: 17 }, () => zeros),
  ])
  expect(await refusedRestore(sandbox, randomUUID(), bomb)).toMatchObject({
    status: 422,
    message: expect.stringContaining('unpacked it has more than'),
  })
}, 180_000)

test.each([
  ['a', 'b', false],
  ['a/b', '../c', false],
  ['a/b', '../../c', true],
  ['a/b', 'c/../d', true],
  ['a', '/etc', true],
  ['a', '..', true],
  ['a/b/c', '../..', false],
  ['a', '', true],
  ['a', './b', false],
])('a link %s -> %s leads out: %s', (name, target, out) => {
  expect(leadsOut(name, target)).toBe(out)
})
