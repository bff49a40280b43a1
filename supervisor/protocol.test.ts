import { randomUUID } from 'node:crypto'
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, unlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import type { JournalEntry, TurnResult } from '../domain/supervisor-protocol.ts'
import { createSupervisorClient } from '../sandbox/supervisor-client.ts'
import { type ScriptedModel, startScriptedModel } from '../test/scripted-model.ts'
import { MASTER_KEY, bindRequest, isRunning, makeRepository, readJournal, startSupervisor } from '../test/supervisor.ts'

const client = createSupervisorClient({ masterKey: MASTER_KEY })
let model: ScriptedModel
beforeAll(async () => {
  model = await startScriptedModel()
})
afterAll(async () => {
  await model.close()
  await client[Symbol.asyncDispose]()
})

const text = (words: string) => [{ type: 'text', text: words }]
const warm = async (options: Omit<Parameters<typeof startSupervisor>[0], 'harness'> = {}) => {
  const supervisor = startSupervisor({ harness: 'light', ...options })
  await supervisor.until(options.purpose === 'session' ? 'booted' : 'warm')
  return supervisor
}
const bound = async (...[options]: Parameters<typeof warm>) => {
  const supervisor = await warm(options)
  await client.bind(supervisor.target, bindRequest(model))
  return supervisor
}
const saidIn = ({ reply }: TurnResult): string =>
  reply?.parts.map(({ text: words }) => (typeof words === 'string' ? words : '')).join('') ?? ''
const refusal = { name: 'AppError', code: 'conflict' }

test('before bind a sandbox holds nothing of a session: no turn, no journal, no conversation to read', async () => {
  await using sandbox = await warm()
  const health = await client.health(sandbox.target)
  expect(health).toMatchObject({ state: 'warm', epoch: null, running_turn: null, journal_seq: 0, failure: null })
  await expect(client.startTurn(sandbox.target, { turn_id: 't', parts: text('say x') })).rejects.toMatchObject({
    ...refusal,
    cause: { code: 'not_bound' },
  })
  await expect(client.messages(sandbox.target)).rejects.toMatchObject({ cause: { code: 'not_bound' } })
  await expect(client.interrupt(sandbox.target)).rejects.toMatchObject({ cause: { code: 'not_bound' } })
  expect(readFileSync(path.join(sandbox.dir, 'session.env'), 'utf8')).toBe('')
  expect(model.requests).toEqual([])
})

test.each(['127.0.0.2', '0.0.0.0', '::1'])(
  'a sandbox that listens on %s gets warm, and goes through its own calls before',
  async (host) => {
    await using sandbox = await warm({ listen: { host, port: 0 } })
    expect(sandbox.output()).not.toContain('not rehearsed')
  },
)

test('a repeated bind of the same epoch gives the same answer; an older, a newer, a second session is refused', async () => {
  await using sandbox = await warm()
  const request = bindRequest(model, { epoch: 5 })
  const [first, second] = await Promise.all([
    client.bind(sandbox.target, request),
    client.bind(sandbox.target, request),
  ])
  expect(second).toEqual(first)
  expect(await client.bind(sandbox.target, request)).toEqual(first)
  for (const epoch of [4, 6])
    await expect(client.bind(sandbox.target, bindRequest(model, { epoch }))).rejects.toMatchObject({
      ...refusal,
      cause: { code: 'other_epoch' },
    })
  expect(await client.health(sandbox.target)).toMatchObject({ state: 'bound', epoch: 5 })
})

test('a bind that failed can be repeated', async () => {
  await using sandbox = await warm()
  const out = { path: '../escaped.txt', content_base64: 'aGk=' }
  await expect(client.bind(sandbox.target, bindRequest(model, { files: [out] }))).rejects.toThrow(
    'out of the workspace',
  )
  expect(existsSync(path.join(sandbox.dir, 'escaped.txt'))).toBe(false)
  await client.bind(sandbox.target, bindRequest(model, { epoch: 2 }))
  expect(await client.health(sandbox.target)).toMatchObject({ state: 'bound', epoch: 2 })
})

test('files of a session go into the workspace, and never through a link out of it', async () => {
  await using sandbox = await warm()
  symlinkSync('/', path.join(sandbox.dir, 'workspace', 'root'))
  const name = `lap-${randomUUID()}`
  const through = { path: `root/tmp/${name}`, content_base64: 'aGk=' }
  await expect(client.bind(sandbox.target, bindRequest(model, { files: [through] }))).rejects.toThrow(
    'out of the workspace',
  )
  expect(existsSync(path.join('/tmp', name))).toBe(false)
  const inside = { path: 'a/b/c.txt', content_base64: Buffer.from('héllo').toString('base64') }
  await client.bind(sandbox.target, bindRequest(model, { files: [inside] }))
  expect(readFileSync(path.join(sandbox.dir, 'workspace/a/b/c.txt'), 'utf8')).toBe('héllo')
})

test('a turn is told from its start to its end, and its reply is in the end', async () => {
  await using sandbox = await bound()
  using journal = readJournal(client, sandbox.target)
  await client.startTurn(sandbox.target, { turn_id: 'one', parts: text('stream 3 0') })
  const result = await journal.finished('one')
  expect(result).toMatchObject({ status: 'done', error: null })
  expect(result.usage).toEqual({ input_tokens: 10, output_tokens: 5, cached_tokens: 0, cost_usd: null, requests: 1 })
  expect(saidIn(result)).toBe('word0 word1 word2 ')
  expect(journal.entries.map(({ seq }) => seq)).toEqual(journal.entries.map((_, i) => i + 1))
  expect(journal.entries[0]).toMatchObject({ type: 'turn_started', turn_id: 'one' })
  expect(journal.entries.at(-1)).toMatchObject({ type: 'turn_finished', turn_id: 'one' })
})

test('a turn runs once, however often it is sent', async () => {
  await using sandbox = await bound()
  using journal = readJournal(client, sandbox.target)
  const turn = { turn_id: 'once', parts: text(`say ${randomUUID()}`) }
  await Promise.all([client.startTurn(sandbox.target, turn), client.startTurn(sandbox.target, turn)])
  await journal.finished('once')
  await client.startTurn(sandbox.target, turn)
  await client.startTurn(sandbox.target, { turn_id: 'next', parts: text('say next') })
  await journal.finished('next')
  const started = journal.entries.filter(({ type }) => type === 'turn_started')
  expect(started).toMatchObject([{ turn_id: 'once' }, { turn_id: 'next' }])
  expect(
    model.requests.filter(({ messages }) => JSON.stringify(messages.at(-1)).includes(turn.parts[0]!.text)),
  ).toHaveLength(1)
})

test('one turn runs at a time: another one is refused until it is over', async () => {
  await using sandbox = await bound()
  using journal = readJournal(client, sandbox.target)
  await client.startTurn(sandbox.target, { turn_id: 'long', parts: text('stream 20 10') })
  await expect(client.startTurn(sandbox.target, { turn_id: 'other', parts: text('say x') })).rejects.toMatchObject({
    ...refusal,
    cause: { code: 'turn_running' },
  })
  await journal.finished('long')
  await client.startTurn(sandbox.target, { turn_id: 'other', parts: text('say x') })
  expect(await journal.finished('other')).toMatchObject({ status: 'done' })
})

test('an interrupted turn ends as cancelled with what it has said, its request ends at the gateway, and the next turn runs', async () => {
  await using sandbox = await bound()
  using journal = readJournal(client, sandbox.target)
  await client.startTurn(sandbox.target, { turn_id: 'long', parts: text('stream 100000 5') })
  await journal.until((entry) => entry.type === 'harness' && entry.event.type === 'message.part.delta')
  await client.interrupt(sandbox.target, 'another')
  expect(await client.health(sandbox.target)).toMatchObject({ running_turn: 'long' })
  await client.interrupt(sandbox.target, 'long')
  const result = await journal.finished('long')
  expect(result).toMatchObject({ status: 'cancelled', error: null })
  expect(saidIn(result)).toMatch(/^word0 /)
  await model.requests.at(-1)!.closed
  await client.startTurn(sandbox.target, { turn_id: 'next', parts: text('say still here') })
  expect(saidIn(await journal.finished('next'))).toBe('still here')
})

test('a turn that is interrupted before it comes ends as cancelled when it comes, and asks no model', async () => {
  await using sandbox = await bound()
  using journal = readJournal(client, sandbox.target)
  await client.interrupt(sandbox.target, 'early')
  const asked = model.requests.length
  await client.startTurn(sandbox.target, { turn_id: 'early', parts: text('say x') })
  expect(await journal.finished('early')).toMatchObject({ status: 'cancelled', reply: null })
  expect(model.requests).toHaveLength(asked)
  await client.startTurn(sandbox.target, { turn_id: 'next', parts: text('say y') })
  expect(await journal.finished('next')).toMatchObject({ status: 'done' })
})

test('the client takes a supervisor that does not know its token for another sandbox: this one is not reached', async () => {
  await using sandbox = await bound()
  const other = { id: randomUUID(), endpoint: sandbox.target.endpoint }
  await expect(client.startTurn(other, { turn_id: 't', parts: text('say x') })).rejects.toMatchObject({
    name: 'SupervisorUnreachable',
  })
})

test('the gateway sees the model of the session, or of the turn, under the real key; the reader sees the same name', async () => {
  await using sandbox = await warm()
  await client.bind(sandbox.target, bindRequest(model, { model: 'claude-x' }))
  using journal = readJournal(client, sandbox.target)
  await client.startTurn(sandbox.target, { turn_id: 'a', parts: text('say a') })
  expect((await journal.finished('a')).reply?.info).toMatchObject({ modelID: 'claude-x' })
  await client.startTurn(sandbox.target, { turn_id: 'b', parts: text('say b'), model: 'other-y' })
  expect((await journal.finished('b')).reply?.info).toMatchObject({ modelID: 'other-y' })
  expect(model.requests.slice(-2)).toMatchObject([
    { model: 'claude-x', authorization: `Bearer ${model.key}` },
    { model: 'other-y', authorization: `Bearer ${model.key}` },
  ])
  expect(JSON.stringify(journal.entries)).not.toContain(model.key)
})

test('a gateway that cannot be reached fails the turn and says so; one that refuses is told in its own words', async () => {
  await using sandbox = await warm()
  const gone = await startScriptedModel()
  await gone.close()
  await client.bind(sandbox.target, bindRequest(gone))
  using journal = readJournal(client, sandbox.target)
  await client.startTurn(sandbox.target, { turn_id: 'a', parts: text('say a') })
  expect(await journal.finished('a')).toMatchObject({ status: 'failed', error: { code: 'gateway_unreachable' } })

  await using other = await bound()
  using otherJournal = readJournal(client, other.target)
  await client.startTurn(other.target, { turn_id: 'a', parts: text('fail 400') })
  const result = await otherJournal.finished('a')
  expect(result).toMatchObject({ status: 'failed', error: { code: 'harness_error' } })
  expect(result.error?.message).toContain('as told')
})

test('the journal is read again from any cursor, also by a second reader and while it grows', async () => {
  await using sandbox = await bound()
  using journal = readJournal(client, sandbox.target)
  await client.startTurn(sandbox.target, { turn_id: 'a', parts: text('stream 2000 0') })
  using second = readJournal(client, sandbox.target)
  await Promise.all([journal.finished('a'), second.finished('a')])
  expect(second.entries).toEqual(journal.entries)
  for (const after of [0, 1, 999, 1_000, journal.entries.length - 1]) {
    using again = readJournal(client, sandbox.target, after)
    await again.finished('a')
    expect(again.entries).toEqual(journal.entries.slice(after))
  }
  const head = journal.entries.length
  using beyond = readJournal(client, sandbox.target, head)
  await client.startTurn(sandbox.target, { turn_id: 'b', parts: text('say b') })
  await beyond.finished('b')
  expect(beyond.entries[0]).toMatchObject({ type: 'turn_started', turn_id: 'b', seq: head + 1 })
})

test('the journal outlives the supervisor: a killed one is replayed by its successor, a torn last line left out, the lost turn ended', async () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'lap-sandbox-'))
  const id = randomUUID()
  let told: JournalEntry[]
  {
    const sandbox = await bound({ dir, sandbox_id: id })
    using journal = readJournal(client, sandbox.target)
    await client.startTurn(sandbox.target, { turn_id: 'lost', parts: text('stream 1000 20') })
    await journal.until((entry) => entry.type === 'harness' && entry.event.type === 'message.part.delta')
    sandbox.process.kill('SIGKILL')
    await sandbox.exited
    told = [...journal.entries]
  }
  appendFileSync(path.join(dir, 'journal.jsonl'), '{"seq":99999,"at":"20')
  unlinkSync(path.join(dir, 'state.json'))
  await using sandbox = await bound({ dir, sandbox_id: id })
  using journal = readJournal(client, sandbox.target)
  expect(await journal.finished('lost')).toMatchObject({ status: 'failed', error: { code: 'harness_exited' } })
  expect(journal.entries.slice(0, told.length)).toEqual(told)
  await client.startTurn(sandbox.target, { turn_id: 'lost', parts: text('say again') })
  await client.startTurn(sandbox.target, { turn_id: 'new', parts: text('say new') })
  await journal.finished('new')
  expect(journal.entries.map(({ seq }) => seq)).toEqual(journal.entries.map((_, i) => i + 1))
  expect(journal.entries.filter(({ type }) => type === 'turn_started')).toHaveLength(2)
})

test('history of a moved session is told to the model, and is no message of the thread', async () => {
  await using sandbox = await warm()
  const history = [
    { role: 'user' as const, text: 'my number is 4711' },
    { role: 'assistant' as const, text: 'noted' },
  ]
  await client.bind(sandbox.target, bindRequest(model, { history, prompt: 'You are terse.' }))
  using journal = readJournal(client, sandbox.target)
  await client.startTurn(sandbox.target, { turn_id: 'a', parts: text('say yes') })
  await journal.finished('a')
  const asked = JSON.stringify(model.requests.at(-1)!.messages)
  expect(asked).toContain('4711')
  expect(asked).toContain('You are terse.')
  expect(JSON.stringify(journal.entries)).not.toContain('4711')
  expect((await client.messages(sandbox.target)).map(({ info }) => info['role'])).toEqual(['user', 'assistant'])
})

test('without the token nothing is told: 401, and a bare status of the health', async () => {
  await using sandbox = await bound()
  const url = sandbox.target.endpoint!
  for (const authorization of ['', 'Bearer wrong', `Bearer ${sandbox.token}x`, sandbox.token])
    for (const [method, route] of [
      ['POST', '/bind'],
      ['POST', '/turns'],
      ['POST', '/interrupt'],
      ['GET', '/events'],
      ['GET', '/messages'],
      ['GET', '/logs'],
    ]) {
      const reply = await fetch(`${url}${route}`, { method: method!, headers: { authorization } })
      expect(reply.status).toBe(401)
      expect(await reply.json()).toEqual({ error: { code: 'unauthorized', message: 'wrong token' } })
    }
  const health = await fetch(`${url}/healthz`)
  expect([health.status, await health.text()]).toEqual([200, ''])
})

test('what is wrong or too large is refused with the name of the field', async () => {
  await using sandbox = await warm()
  const call = async (route: string, body: string) => {
    const reply = await fetch(`${sandbox.target.endpoint}${route}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${sandbox.token}` },
      body,
    })
    const { error } = (await reply.json()) as { error: { code: string; message: string; details?: { path: string }[] } }
    return { status: reply.status, code: error.code, paths: error.details?.map(({ path: field }) => field) }
  }
  const good = bindRequest(model)
  const wrong: [Partial<Record<keyof typeof good, unknown>>, string[]][] = [
    [{ epoch: 'one' }, ['epoch']],
    [{ prompt: 'x'.repeat(1_000_001), model: '' }, ['prompt', 'model']],
    [{ env: { 'no name': 'x', LONG: 'x'.repeat(131_073), N: 1 } }, ['env.no name', 'env.LONG', 'env.N']],
    [{ gateway: { base_url: 'file:///etc', api_key: '' } }, ['gateway.base_url', 'gateway.api_key']],
    [{ files: Array.from({ length: 1_001 }, () => ({})) }, ['files']],
    [{ files: [{ path: '', content_base64: '%%' }] }, ['files[0].path', 'files[0].content_base64']],
    [{ history: [{ role: 'system', text: 1 }] }, ['history[0].role', 'history[0].text']],
    [{ session: null }, ['session', 'session.id', 'session.agent_id', 'session.title']],
  ]
  for (const [change, paths] of wrong)
    expect(await call('/bind', JSON.stringify({ ...good, ...change }))).toEqual({ status: 422, code: 'invalid', paths })
  expect(await call('/bind', '{"epoch": ')).toMatchObject({ status: 400, code: 'bad_request' })
  expect(await call('/bind', JSON.stringify({ ...good, more: 'x'.repeat(65 * 1024 * 1024) }))).toMatchObject({
    status: 413,
  })
  await client.bind(sandbox.target, good)
  expect(await call('/turns', '{"turn_id":"","parts":[]}')).toMatchObject({ status: 422, paths: ['turn_id', 'parts'] })
  const parts = [{ text: 'x'.repeat(16 * 1024 * 1024 + 1) }]
  expect(await call('/turns', JSON.stringify({ turn_id: 't', parts }))).toMatchObject({
    status: 422,
    paths: ['parts[0].type', 'parts[0].text'],
  })
  const reply = await fetch(`${sandbox.target.endpoint}/events?after=-1`, {
    headers: { authorization: `Bearer ${sandbox.token}` },
  })
  expect(reply.status).toBe(400)
})

test('the repository is cloned and the set-up command run in it, before anything else, with the plain environment', async () => {
  const repo_url = makeRepository({ 'a/file.txt': 'content\n' }, 'trunk')
  await using sandbox = await warm({
    repo_url,
    branch: 'trunk',
    setup_command: 'echo "$GREETING $(cat a/file.txt)" > made.txt; env > env.txt; sleep 600 &',
    env: { GREETING: 'hello' },
  })
  const at = (file: string): string => readFileSync(path.join(sandbox.dir, 'workspace', file), 'utf8')
  expect(at('made.txt')).toBe('hello content\n')
  expect(at('env.txt')).toContain(`LAP_SANDBOX_ID=${sandbox.target.id}`)
  expect(at('env.txt')).toContain(`HOME=${path.join(sandbox.dir, 'home')}`)
  expect(at('env.txt')).not.toContain(sandbox.token)
  rmSync(repo_url.slice('file://'.length), { recursive: true })
})

test('a set-up command that fails ends the start, with its last lines', async () => {
  await using sandbox = startSupervisor({
    harness: 'light',
    setup_command: 'for i in $(seq 100); do echo "line $i"; done; echo "no such package: left-pad" >&2; exit 7',
  })
  expect(await sandbox.exited).toEqual({ code: 1, signal: null })
  const { state, failure } = sandbox.state()!
  expect({ state, code: failure?.code }).toEqual({ state: 'failed', code: 'setup_failed' })
  expect(failure?.message).toMatch(/ended with 7.*line 100\nno such package: left-pad$/s)
  expect(failure?.message).not.toContain('line 50\n')
})

test('a repository or a branch that is not there ends the start in the words of git', async () => {
  const repo_url = makeRepository()
  for (const [source, words] of [
    [{ repo_url: 'file:///nowhere/at/all' }, "'/nowhere/at/all' does not appear to be a git repository"],
    [{ repo_url, branch: 'no-such-branch' }, 'Remote branch no-such-branch not found'],
  ] as const) {
    await using sandbox = startSupervisor({ harness: 'light', ...source })
    expect(await sandbox.exited).toEqual({ code: 1, signal: null })
    expect(sandbox.state()).toMatchObject({ state: 'failed', failure: { code: 'clone_failed' } })
    expect(sandbox.state()?.failure?.message).toContain(words)
  }
  rmSync(repo_url.slice('file://'.length), { recursive: true })
})

test('a harness that cannot be loaded ends the start', async () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'lap-harness-'))
  await using sandbox = startSupervisor({ harness: 'light', harness_dir: dir })
  expect(await sandbox.exited).toEqual({ code: 1, signal: null })
  expect(sandbox.state()).toMatchObject({ state: 'failed', failure: { code: 'harness_exited' } })
  rmSync(dir, { recursive: true })
})

test('SIGTERM ends a starting supervisor with all that its set-up command has started', async () => {
  await using sandbox = startSupervisor({
    harness: 'light',
    setup_command: 'setsid sleep 600 & echo $! > pid; sleep 600',
  })
  const file = path.join(sandbox.dir, 'workspace', 'pid')
  while (!existsSync(file) || readFileSync(file, 'utf8') === '') await sleep(20)
  const pid = Number(readFileSync(file, 'utf8'))
  const since = performance.now()
  sandbox.process.kill('SIGTERM')
  expect(await sandbox.exited).toEqual({ code: 0, signal: null })
  expect(performance.now() - since).toBeLessThan(3_000)
  expect(isRunning(pid)).toBe(false)
})
