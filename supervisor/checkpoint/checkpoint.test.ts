import { execFileSync } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals'
import type { BindRequest } from '../../domain/supervisor-protocol.ts'
import { createSupervisorClient } from '../../sandbox/supervisor-client.ts'
import {
  askForCheckpoint,
  refusedCheckpoint,
  refusedRestore,
  restoreCheckpoint,
  rewritten,
  takeCheckpoint,
} from '../../test/checkpoint.ts'
import { type ScriptedModel, startScriptedModel } from '../../test/scripted-model.ts'
import {
  MASTER_KEY,
  type TestSupervisor,
  bindRequest,
  makeRepository,
  readJournal,
  startSupervisor,
} from '../../test/supervisor.ts'

/** Each starts two sandboxes or three. */
jest.setTimeout(120_000)

const client = createSupervisorClient({ masterKey: MASTER_KEY })
let model: ScriptedModel
let repo_url: string

beforeAll(async () => {
  model = await startScriptedModel('sk-real-gateway-key')
  repo_url = makeRepository({
    'README.md': 'from the repository\n',
    'src/a.txt': 'a\n',
    'src/b.txt': 'b\n',
    'docs/only.txt': 'only\n',
    '.gitignore': 'ignored/\n*.log\n',
  })
})
afterAll(async () => {
  await Promise.all([model.close(), client[Symbol.asyncDispose]()])
  rmSync(repo_url.slice('file://'.length), { recursive: true })
})

type Options = Partial<Parameters<typeof startSupervisor>[0]>

const started = async (options: Options = {}): Promise<TestSupervisor> => {
  const sandbox = startSupervisor({ harness: 'light', purpose: 'session', repo_url, ...options })
  await sandbox.until('booted')
  return sandbox
}
const bound = async (options: Options = {}, request: Partial<BindRequest> = {}): Promise<TestSupervisor> => {
  const sandbox = await started(options)
  await client.bind(sandbox.target, bindRequest(model, request))
  return sandbox
}
const run = async (sandbox: TestSupervisor, turn_id: string, words: string): Promise<void> => {
  using journal = readJournal(client, sandbox.target)
  await client.startTurn(sandbox.target, { turn_id, parts: [{ type: 'text', text: words }] })
  expect(await journal.finished(turn_id)).toMatchObject({ status: 'done' })
}
const at = ({ dir }: TestSupervisor, name: string): string => path.join(dir, 'workspace', name)
const write = (sandbox: TestSupervisor, name: string, content: string | Buffer): void => {
  mkdirSync(path.dirname(at(sandbox, name)), { recursive: true })
  writeFileSync(at(sandbox, name), content)
}
const git = (sandbox: TestSupervisor, ...args: string[]): string =>
  execFileSync('git', ['-c', 'user.name=agent', '-c', 'user.email=agent@example.com', ...args], {
    cwd: at(sandbox, ''),
    encoding: 'utf8',
  }).trim()
/** Everything in a workspace but the inside of its repository: kind, mode and content. */
const contentOf = (sandbox: TestSupervisor): Record<string, string> =>
  Object.fromEntries(
    (readdirSync(at(sandbox, ''), { recursive: true }) as string[])
      .filter((name) => !/^\.git(\/|$)/.test(name) && !lstatSync(at(sandbox, name)).isDirectory())
      .map((name) => {
        const found = lstatSync(at(sandbox, name))
        if (found.isSymbolicLink()) return [name, `-> ${readlinkSync(at(sandbox, name))}`]
        return [name, `${(found.mode & 0o777).toString(8)} ${readFileSync(at(sandbox, name), 'latin1')}`]
      }),
  )
/** Until a checkpoint is being made. */
const untilMaking = async ({ dir }: TestSupervisor): Promise<void> => {
  const folder = path.join(dir, 'checkpoints')
  while (!existsSync(folder) || readdirSync(folder).length === 0) await sleep(2)
}
const idOf = (): string => randomUUID()

test('a conversation goes on in another sandbox, with its files, and the harness is told only what was said since', async () => {
  await using first = await bound()
  await run(first, 'one', 'say the number is 4711')
  write(first, 'notes.txt', 'new\n')
  const { manifest, archive } = await takeCheckpoint(first)
  expect(manifest).toMatchObject({
    version: 1,
    harness: { id: 'light' },
    has_conversation: true,
    files: 1,
    omitted: [],
  })
  expect(manifest.base_commit).toBe(git(first, 'rev-parse', 'HEAD'))

  await using second = await started()
  const id = idOf()
  const restored = await restoreCheckpoint(second, id, archive)
  expect(restored).toEqual({ checkpoint_id: id, conversation: true, files: 1, problems: [] })
  expect(readFileSync(at(second, 'notes.txt'), 'utf8')).toBe('new\n')

  const request = bindRequest(model, {
    history: [{ role: 'user', text: 'the whole of it' }],
    checkpoint: { id, since: [{ role: 'user', text: 'what came after' }] },
  })
  const reply = await client.bind(second.target, request)
  expect(reply).toMatchObject({ harness_session_id: manifest.conversation, restored: { conversation: true, files: 1 } })
  expect(await client.bind(second.target, request)).toEqual(reply)
  await run(second, 'two', 'say yes')
  const asked = JSON.stringify(model.requests.at(-1)!.messages)
  expect(asked).toContain('the number is 4711')
  expect(asked).toContain('what came after')
  expect(asked).not.toContain('the whole of it')
  expect(asked).toContain(at(second, '').replace(/\/$/, ''))
  const thread = (await client.messages(second.target)).map(({ info }) => info['role'])
  expect(thread).toEqual(['user', 'assistant', 'user', 'assistant'])
})

test('files are as they were: changed, new, deleted, their modes, links, and folders in place of files', async () => {
  await using first = await bound()
  write(first, 'src/a.txt', 'changed\n')
  write(first, 'new/deep/file with ünicode.txt', 'new\n')
  write(first, 'binary.bin', Buffer.from([0, 255, 10, 13, 0]))
  write(first, `long/${'x'.repeat(120)}/${'y'.repeat(120)}.txt`, 'long\n')
  chmodSync(at(first, 'README.md'), 0o755)
  rmSync(at(first, 'docs'), { recursive: true })
  symlinkSync('../src/a.txt', at(first, 'new/link'))
  symlinkSync('src', at(first, 'folder-link'))
  rmSync(at(first, 'src/b.txt'))
  write(first, 'src/b.txt/inside.txt', 'a folder now\n')
  write(first, 'empty.txt', '')
  const { archive } = await takeCheckpoint(first)
  await using second = await started()
  await restoreCheckpoint(second, idOf(), archive)
  expect(contentOf(second)).toEqual(contentOf(first))
  expect(existsSync(at(second, 'docs'))).toBe(false)
  expect(git(second, 'status', '--porcelain')).toBe(git(first, 'status', '--porcelain'))
})

test('commits, branches, tags, the stash, HEAD and the index come along', async () => {
  await using first = await bound()
  git(first, 'checkout', '--quiet', '-b', 'feature/one')
  write(first, 'src/a.txt', 'committed\n')
  git(first, 'commit', '--quiet', '--all', '--message', 'second')
  git(first, 'tag', 'v1')
  git(first, 'branch', 'other')
  write(first, 'src/a.txt', 'stashed\n')
  git(first, 'stash', '--quiet')
  write(first, 'src/a.txt', 'staged\n')
  git(first, 'add', 'src/a.txt')
  write(first, 'src/a.txt', 'staged and changed\n')
  git(first, 'rm', '--quiet', '--cached', 'README.md')
  const { archive } = await takeCheckpoint(first)
  expect(git(first, 'for-each-ref', 'refs/lap')).toBe('')
  await using second = await started()
  expect(await restoreCheckpoint(second, idOf(), archive)).toMatchObject({ problems: [] })
  for (const question of [
    ['status', '--porcelain', '--branch'],
    ['log', '--format=%H %s', '--all'],
    ['for-each-ref', '--format=%(refname) %(objectname)', 'refs/heads', 'refs/tags', 'refs/stash'],
    ['symbolic-ref', 'HEAD'],
    ['diff', '--cached'],
    ['diff'],
    ['stash', 'list'],
  ])
    expect(git(second, ...question)).toBe(git(first, ...question))
  git(second, 'stash', 'show', '--patch')
  git(second, 'fsck', '--connectivity-only')
})

test('a turn waits for a checkpoint that is being made; before bind, and while a turn runs, there is none', async () => {
  await using fresh = await started()
  expect(await refusedCheckpoint(fresh)).toMatchObject({ status: 409, code: 'not_bound' })
  await using sandbox = await bound()
  using journal = readJournal(client, sandbox.target)
  await client.startTurn(sandbox.target, { turn_id: 'long', parts: [{ type: 'text', text: 'stream 40 50' }] })
  expect(await refusedCheckpoint(sandbox)).toMatchObject({ status: 409, code: 'turn_running' })
  await journal.finished('long')
  write(sandbox, 'some.bin', randomBytes(20 * 1_024 * 1_024))
  const taken = askForCheckpoint(sandbox)
  await untilMaking(sandbox)
  await run(sandbox, 'next', 'say on')
  const response = await taken
  expect(response.statusCode).toBe(200)
  await response.body.dump()
})

test('a turn that has waited long enough goes before: the checkpoint is given up', async () => {
  await using sandbox = await bound()
  // git waits for it, and with it the checkpoint.
  execFileSync('bash', ['-c', 'mkfifo "$0"', at(sandbox, 'pipe')])
  git(sandbox, 'config', 'core.excludesFile', at(sandbox, 'pipe'))
  const refusal = refusedCheckpoint(sandbox)
  await untilMaking(sandbox)
  await run(sandbox, 'next', 'say on')
  expect(await refusal).toMatchObject({ status: 409, code: 'turn_running' })
  git(sandbox, 'config', '--unset', 'core.excludesFile')
  expect((await takeCheckpoint(sandbox)).manifest).toMatchObject({ has_conversation: true })
})

test('what is too much is left out, the largest first, never the conversation', async () => {
  await using sandbox = await bound()
  await run(sandbox, 'one', 'say kept')
  const sizes = { 'a.bin': 20_000, 'b.bin': 60_000, 'c.bin': 200_000, 'd.bin': 300_000 }
  for (const [name, size] of Object.entries(sizes)) write(sandbox, name, randomBytes(size))
  const { manifest, archive } = await takeCheckpoint(sandbox, 150_000)
  expect(archive.length).toBeLessThanOrEqual(150_000)
  expect(manifest).toMatchObject({ has_conversation: true, files: 2 })
  expect(manifest.omitted).toEqual([
    { path: 'd.bin', reason: 'over_limit', bytes: 300_000 },
    { path: 'c.bin', reason: 'over_limit', bytes: 200_000 },
  ])
  await using second = await started()
  const reply = await restoreCheckpoint(second, idOf(), archive)
  expect(reply).toMatchObject({ conversation: true, files: 2 })
  expect(readFileSync(at(second, 'b.bin'))).toEqual(readFileSync(at(sandbox, 'b.bin')))
  expect(existsSync(at(second, 'c.bin'))).toBe(false)
})

test('however much is left out, what is said of it fits into a header', async () => {
  await using sandbox = await bound()
  for (let i = 0; i < 500; i++) symlinkSync('/etc/passwd', at(sandbox, `link-${String(i).padStart(200, '0')}`))
  const { manifest } = await takeCheckpoint(sandbox)
  expect(manifest.omitted.length).toBeGreaterThan(5)
  expect(manifest.omitted[0]).toMatchObject({ reason: 'leads_out' })
  expect(manifest.omitted.length + manifest.omitted_more).toBe(500)
})

test('what the repository ignores is not kept, nor is what the platform knows', async () => {
  await using sandbox = await bound(
    {},
    {
      env: { SECRET: 'session-secret-4711' },
      mcp: [
        {
          name: 'tools',
          transport: 'http',
          url: 'http://127.0.0.1:9/mcp',
          headers: { Authorization: 'Bearer mcp-key' },
        },
      ],
    },
  )
  await run(sandbox, 'one', 'say x')
  write(sandbox, 'ignored/build.txt', 'built\n')
  write(sandbox, 'out.log', 'log\n')
  git(sandbox, 'config', 'remote.origin.url', 'https://user:token-in-url@example.com/repo')
  const { manifest, archive } = await takeCheckpoint(sandbox)
  expect(manifest.files).toBe(0)
  const inside = gunzipSync(archive).toString('latin1')
  for (const secret of [model.key, 'session-secret-4711', 'mcp-key', sandbox.token, 'token-in-url'])
    expect(inside).not.toContain(secret)
})

test('a workspace without a repository is kept whole, with the repositories that are made in it', async () => {
  await using first = await bound({ repo_url: '' })
  write(first, 'a/b.txt', 'b\n')
  mkdirSync(at(first, 'cloned'))
  execFileSync('git', ['clone', '--quiet', repo_url, at(first, 'cloned')])
  write(first, 'cloned/ignored/build.txt', 'built\n')
  write(first, 'cloned/README.md', 'changed\n')
  const { manifest, archive } = await takeCheckpoint(first)
  expect(manifest.base_commit).toBeNull()
  await using second = await started({ repo_url: '' })
  expect(await restoreCheckpoint(second, idOf(), archive)).toMatchObject({ problems: [], files: manifest.files })
  expect(readFileSync(at(second, 'a/b.txt'), 'utf8')).toBe('b\n')
  expect(existsSync(at(second, 'cloned/ignored'))).toBe(false)
  expect(git(second, '-C', 'cloned', 'status', '--porcelain')).toBe('M README.md')
})

test('a clone that is at a newer commit goes back to the one that the files differ from', async () => {
  const source = makeRepository({ 'a.txt': 'one\n', 'gone.txt': 'x\n' })
  const inSource = (...args: string[]) =>
    execFileSync('git', ['-c', 'user.name=t', '-c', 'user.email=t@example.com', ...args], {
      cwd: source.slice('file://'.length),
    })
  await using first = await bound({ repo_url: source })
  write(first, 'mine.txt', 'mine\n')
  git(first, 'add', 'mine.txt')
  git(first, 'commit', '--quiet', '--message', 'mine')
  const { archive } = await takeCheckpoint(first)
  writeFileSync(path.join(source.slice('file://'.length), 'a.txt'), 'two\n')
  inSource('commit', '--quiet', '--all', '--message', 'newer')
  await using second = await started({ repo_url: source })
  expect(readFileSync(at(second, 'a.txt'), 'utf8')).toBe('two\n')
  expect(await restoreCheckpoint(second, idOf(), archive)).toMatchObject({ problems: [] })
  expect(contentOf(second)).toEqual(contentOf(first))
  expect(git(second, 'rev-parse', 'HEAD')).toBe(git(first, 'rev-parse', 'HEAD'))
  // And from there again.
  await client.bind(second.target, bindRequest(model))
  expect((await takeCheckpoint(second)).manifest.base_commit).toBe(git(first, 'rev-parse', 'HEAD~1'))
  rmSync(source.slice('file://'.length), { recursive: true })
})

test('where that commit is nowhere any more, the files are written over the clone, which is said', async () => {
  const [one, other] = [
    makeRepository({ 'a.txt': 'one\n', 'b.txt': 'b\n' }),
    makeRepository({ 'a.txt': 'two\n', 'b.txt': 'c\n' }),
  ]
  await using first = await bound({ repo_url: one })
  write(first, 'a.txt', 'mine\n')
  const { archive } = await takeCheckpoint(first)
  await using second = await started({ repo_url: other })
  const { problems } = await restoreCheckpoint(second, idOf(), archive)
  expect(problems).toEqual([{ path: '.git', reason: expect.stringContaining('cannot be had') }])
  expect([readFileSync(at(second, 'a.txt'), 'utf8'), readFileSync(at(second, 'b.txt'), 'utf8')]).toEqual([
    'mine\n',
    'c\n',
  ])
  for (const each of [one, other]) rmSync(each.slice('file://'.length), { recursive: true })
})

test('the same checkpoint again is answered the same; another one takes its place, in a clone made anew; after bind there is none', async () => {
  await using first = await bound({ setup_command: 'echo made > made-by-setup.txt' })
  write(first, 'one.txt', 'one\n')
  const one = await takeCheckpoint(first)
  rmSync(at(first, 'one.txt'))
  write(first, 'two.txt', 'two\n')
  git(first, 'checkout', '--quiet', '-b', 'two')
  const two = await takeCheckpoint(first)
  await using second = await started({ setup_command: 'echo made > made-by-setup.txt' })
  const [a, b] = [idOf(), idOf()]
  const reply = await restoreCheckpoint(second, a, one.archive)
  expect(await restoreCheckpoint(second, a, Buffer.alloc(0))).toEqual(reply)
  await restoreCheckpoint(second, b, two.archive)
  expect(contentOf(second)).toEqual(contentOf(first))
  expect(git(second, 'branch', '--show-current')).toBe('two')
  const request = (id: string) => bindRequest(model, { checkpoint: { id, since: [] } })
  await expect(client.bind(second.target, request(a))).rejects.toMatchObject({ cause: { code: 'no_checkpoint' } })
  expect(await client.bind(second.target, request(b))).toMatchObject({ restored: { conversation: true } })
  expect(await refusedRestore(second, a, one.archive)).toMatchObject({ status: 409, code: 'bound' })
  expect(await restoreCheckpoint(second, b, two.archive)).toMatchObject({ checkpoint_id: b })
})

test('files of a bind do not replace what the agent has made of them', async () => {
  const files = ['kept.txt', 'ignored/secret.txt'].map((name) => ({
    path: name,
    content_base64: Buffer.from('of the session\n').toString('base64'),
  }))
  await using first = await bound({}, { files })
  write(first, 'kept.txt', 'changed by the agent\n')
  const { archive } = await takeCheckpoint(first)
  await using second = await started()
  const id = idOf()
  await restoreCheckpoint(second, id, archive)
  await client.bind(second.target, bindRequest(model, { files, checkpoint: { id, since: [] } }))
  expect(readFileSync(at(second, 'kept.txt'), 'utf8')).toBe('changed by the agent\n')
  expect(readFileSync(at(second, 'ignored/secret.txt'), 'utf8')).toBe('of the session\n')
})

test('a checkpoint of another harness brings its files; its conversation is told', async () => {
  await using first = await bound()
  await run(first, 'one', 'say x')
  write(first, 'a.txt', 'a\n')
  const { archive } = await takeCheckpoint(first)
  const tar = await rewritten(archive, (entries) =>
    entries.map((each) =>
      each.name === 'checkpoint.json' ? { ...each, body: each.body.toString().replace('"light"', '"other"') } : each,
    ),
  )
  await using second = await started()
  const id = idOf()
  expect(await restoreCheckpoint(second, id, tar)).toMatchObject({ conversation: false, files: 1 })
  const history = [{ role: 'user' as const, text: 'all that was said' }]
  const reply = await client.bind(second.target, bindRequest(model, { history, checkpoint: { id, since: [] } }))
  expect(reply).toMatchObject({ restored: { conversation: false } })
  await run(second, 'two', 'say y')
  expect(JSON.stringify(model.requests.at(-1)!.messages)).toContain('all that was said')
})
