import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals'
import { type DemoGateway, createDemoGateway } from '../../demo/gateway.ts'
import type { JournalEntry, TurnResult } from '../../domain/supervisor-protocol.ts'
import { createSupervisorClient } from '../../sandbox/supervisor-client.ts'
import { type ScriptedModel, startScriptedModel } from '../../test/scripted-model.ts'
import {
  MASTER_KEY,
  type JournalReader,
  type TestSupervisor,
  bindRequest,
  isRunning,
  makeRepository,
  readJournal,
  startSupervisor,
} from '../../test/supervisor.ts'

/** The real opencode: a start takes some 8 s of processor time. */
jest.setTimeout(180_000)

const client = createSupervisorClient({ masterKey: MASTER_KEY })
const MARK = 'session-secret-4711'
let model: ScriptedModel
let demo: DemoGateway
let repo_url: string
let sandbox: TestSupervisor
let journal: JournalReader

beforeAll(async () => {
  model = await startScriptedModel('sk-real-gateway-key')
  demo = await createDemoGateway({ host: '127.0.0.1', port: 0, key: 'demo-key' })
  repo_url = makeRepository({ 'README.md': 'from the repository\n' })
})
afterAll(async () => {
  journal?.[Symbol.dispose]()
  await sandbox?.[Symbol.asyncDispose]()
  await Promise.all([model.close(), demo.close(), client[Symbol.asyncDispose]()])
  rmSync(repo_url.slice('file://'.length), { recursive: true })
})

const text = (words: string) => [{ type: 'text', text: words }]
const saidIn = ({ reply }: TurnResult): string =>
  reply?.parts.map(({ type, text: words }) => (type === 'text' && typeof words === 'string' ? words : '')).join('') ??
  ''
const toolsIn = ({ reply }: TurnResult) =>
  reply?.parts.filter(({ type }) => type === 'tool').map((part) => part['state'] as Record<string, unknown>) ?? []
const run = async (turn_id: string, words: string, target = sandbox, reader = journal): Promise<TurnResult> => {
  await client.startTurn(target.target, { turn_id, parts: text(words) })
  return reader.finished(turn_id)
}
const ofHarness = (entries: JournalEntry[], type: string) =>
  entries.filter((entry) => entry.type === 'harness').filter(({ event }) => event.type === type)

/** Processes that came from a sandbox: its id is in their environment. */
const processesOf = (id: string): number[] =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`LAP_SANDBOX_ID=${id}`)
      } catch {
        return false
      }
    })
    .map(Number)

/** Files under a folder that hold a text, also in a database. */
const filesWith = (folder: string, words: string): string[] => {
  try {
    return execFileSync('grep', ['-rlaF', '--', words, folder], { encoding: 'utf8' }).trim().split('\n')
  } catch {
    return []
  }
}

test('a sandbox of the pool is warm after a whole turn with a tool, which leaves no conversation and asks no model', async () => {
  sandbox = startSupervisor({ harness: 'opencode', repo_url, env: { PLAIN: 'plain value' } })
  await sandbox.until('warm')
  expect(sandbox.output()).toMatch(/warmed up\n/)
  expect(await client.health(sandbox.target)).toMatchObject({ state: 'warm', epoch: null, journal_seq: 0 })
  expect(readFileSync(path.join(sandbox.dir, 'workspace/README.md'), 'utf8')).toBe('from the repository\n')
  expect(model.requests).toEqual([])
})

test('a bind gives identity, environment and files, and takes a conversation that is open already', async () => {
  const request = bindRequest(model, {
    env: { MARK, QUOTED: `it's "$HOME"` },
    prompt: 'Answer like a pirate.',
    model: 'the-model-of-the-session',
    files: [{ path: 'notes/todo.md', content_base64: Buffer.from('file of the session').toString('base64') }],
  })
  const reply = await client.bind(sandbox.target, request)
  expect(reply).toEqual({ epoch: 1, harness_session_id: expect.stringMatching(/^ses_/) })
  expect(await client.bind(sandbox.target, request)).toEqual(reply)
  expect(await client.messages(sandbox.target)).toEqual([])
  journal = readJournal(client, sandbox.target)
})

test('a turn reaches the gateway with the model, the prompt and the real key, and is told as it streams', async () => {
  const result = await run('first', 'stream 5 150')
  expect(result).toMatchObject({
    status: 'done',
    error: null,
    reply: { info: { modelID: 'the-model-of-the-session' } },
  })
  expect(saidIn(result)).toBe('word0 word1 word2 word3 word4 ')
  expect(result.usage).toEqual({ input_tokens: 10, output_tokens: 5, cached_tokens: 0, cost_usd: null, requests: 1 })
  const asked = model.requests.at(-1)!
  expect(asked).toMatchObject({ model: 'the-model-of-the-session', authorization: 'Bearer sk-real-gateway-key' })
  expect(JSON.stringify(asked.messages)).toContain('Answer like a pirate.')
  const said = ofHarness(journal.entries, 'message.part.delta')
  const deltas = said.map(({ at }) => Date.parse(at))
  expect(deltas.length).toBeGreaterThanOrEqual(4)
  expect(deltas.at(-1)! - deltas[0]!).toBeGreaterThan(150)
  // Something that is not of the turn, such as a new title, may follow its end.
  const end = journal.entries.findIndex(({ type }) => type === 'turn_finished')
  expect(end).toBeGreaterThan(journal.entries.indexOf(said.at(-1)!))
})

test('tools run in the workspace with the environment of the session', async () => {
  const result = await run('tools', 'run echo "$MARK|$QUOTED|$PLAIN|$(cat notes/todo.md)|$(basename $PWD)"\nsay done')
  const [state] = toolsIn(result)
  expect(state).toMatchObject({ status: 'completed' })
  expect(String(state!['output'])).toContain(`${MARK}|it's "$HOME"|plain value|file of the session|workspace`)
  expect(saidIn(result)).toBe('done')
})

test('the key of the gateway and the token of the sandbox are in no process, environment, command or file of the harness', async () => {
  // Looks at every process of the machine, as a tool of the harness. The pattern is split, so that the command does not find itself.
  const look = `grep -laF -f <(printf '%s\\n' sk-real-'gateway' ${sandbox.token.slice(0, 10)}''${sandbox.token.slice(10, 20)})`
  const result = await run('sweep', `run ${look} /proc/[0-9]*/environ /proc/[0-9]*/cmdline; env; echo swept\nsay done`)
  const output = String(toolsIn(result)[0]!['output'])
  expect(output).toContain('swept')
  expect(output).toContain('LAP_SANDBOX_ID=')
  expect(output).not.toMatch(/^\/proc/m)
  expect(output).not.toContain(model.key)
  for (const pid of processesOf(sandbox.target.id))
    for (const file of ['environ', 'cmdline']) {
      const content = readFileSync(`/proc/${pid}/${file}`, 'latin1')
      for (const secret of [model.key, sandbox.token]) expect(content.includes(secret)).toBe(false)
    }
  expect(filesWith(sandbox.dir, model.key)).toEqual([])
  expect(filesWith(sandbox.dir, sandbox.token)).toEqual([])
})

test('an interrupted turn ends as cancelled, its tool and its request with it, and the next turn goes on', async () => {
  await client.startTurn(sandbox.target, { turn_id: 'long tool', parts: text('run sleep 301; echo woke\nsay x') })
  await journal.until((entry) => entry.type === 'harness' && JSON.stringify(entry.event).includes('"status":"running"'))
  await client.interrupt(sandbox.target, 'long tool')
  expect(await journal.finished('long tool')).toMatchObject({ status: 'cancelled', error: null })
  expect(execFileSync('ps', ['-A', '-o', 'args='], { encoding: 'utf8' })).not.toContain('sleep 301')

  await client.startTurn(sandbox.target, { turn_id: 'long answer', parts: text('stream 100000 20') })
  await journal.until(
    (entry) =>
      entry.type === 'harness' &&
      'turn_id' in entry &&
      entry.turn_id === 'long answer' &&
      entry.event.type === 'message.part.delta',
  )
  await client.interrupt(sandbox.target)
  const result = await journal.finished('long answer')
  expect(result.status).toBe('cancelled')
  expect(saidIn(result)).toMatch(/^word0 /)
  await model.requests.at(-1)!.closed
  expect(saidIn(await run('after', 'say here'))).toBe('here')
})

test('a gateway that refuses fails the turn in its own words, and the next turn goes on', async () => {
  const result = await run('refused', 'fail 400')
  expect(result).toMatchObject({
    status: 'failed',
    error: { code: 'harness_error', message: expect.stringContaining('as told') },
  })
  expect(saidIn(await run('after refused', 'say fine'))).toBe('fine')
})

test('a killed harness is told with its cause, its tools end with it, and the next turn knows the conversation', async () => {
  await client.startTurn(sandbox.target, { turn_id: 'fatal', parts: text('run sleep 302\nsay x') })
  await journal.until(
    (entry) => 'turn_id' in entry && entry.turn_id === 'fatal' && JSON.stringify(entry).includes('"status":"running"'),
  )
  const { harness } = await client.health(sandbox.target)
  process.kill(harness.pid!, 'SIGKILL')
  const result = await journal.finished('fatal')
  expect(result).toMatchObject({ status: 'failed', error: { code: 'harness_exited' } })
  expect(result.error!.message).toContain('SIGKILL')
  expect(saidIn(await run('revived', 'say back'))).toBe('back')
  expect(execFileSync('ps', ['-A', '-o', 'args='], { encoding: 'utf8' })).not.toContain('sleep 302')
  const order = journal.entries.map(({ type }) => type).filter((type) => type !== 'harness')
  expect(order.slice(order.indexOf('harness_exited') - 1)).toEqual([
    'turn_started',
    'harness_exited',
    'turn_finished',
    ...(order.includes('harness_restarted') ? order.slice(order.indexOf('harness_exited') + 2) : []),
  ])
  expect(order).toContain('harness_restarted')
  expect(journal.entries.find(({ type }) => type === 'harness_exited')).toMatchObject({
    turn_id: 'fatal',
    signal: 'SIGKILL',
    tail: expect.arrayContaining([expect.stringContaining('listening')]),
  })
  expect(JSON.stringify(model.requests.at(-1)!.messages)).toContain('word0 ')
  const thread = await client.messages(sandbox.target)
  const states = thread.flatMap(({ parts }) =>
    parts.flatMap((part) => (part.type === 'tool' ? [part['state'] as { status: string }] : [])),
  )
  expect(states.map(({ status }) => status)).not.toContain('running')
  expect(await client.health(sandbox.target)).toMatchObject({ harness: { running: true, restarts: 1 } })
})

test('SIGTERM ends everything that came from the sandbox within three seconds', async () => {
  await client.startTurn(sandbox.target, {
    turn_id: 'last',
    parts: text('run setsid sleep 303 & (trap "" TERM; sleep 304)\nsay x'),
  })
  const has = (words: string): boolean =>
    execFileSync('ps', ['-A', '-o', 'args='], { encoding: 'utf8' }).includes(words)
  while (!has('sleep 304')) await sleep(50)
  const pids = processesOf(sandbox.target.id)
  expect(pids.length).toBeGreaterThanOrEqual(3)
  const since = performance.now()
  sandbox.process.kill('SIGTERM')
  expect(await sandbox.exited).toEqual({ code: 0, signal: null })
  expect(performance.now() - since).toBeLessThan(3_500)
  expect(pids.filter(isRunning)).toEqual([])
})

test('a cold start is usable as soon as opencode answers; a moved session is told its history; the demo model runs a command', async () => {
  await using cold = startSupervisor({ harness: 'opencode', purpose: 'session' })
  await cold.until('booted')
  const history = [
    { role: 'user' as const, text: 'My number is 4711.' },
    { role: 'assistant' as const, text: 'I keep it in mind.' },
  ]
  const request = bindRequest({ url: demo.url, key: 'demo-key' }, { model: 'demo', history })
  await client.bind(cold.target, request)
  using reader = readJournal(client, cold.target)
  expect(saidIn(await run('a', 'hello there', cold, reader))).toContain('hello there')
  const result = await run('b', 'please:\n$ echo $((6*7)) > answer.txt; cat answer.txt', cold, reader)
  expect(saidIn(result)).toContain('42')
  expect(existsSync(path.join(cold.dir, 'workspace/answer.txt'))).toBe(true)
  expect(JSON.stringify(reader.entries)).not.toContain('4711')
  expect(JSON.stringify(await client.messages(cold.target))).not.toContain('4711')
  expect(filesWith(path.join(cold.dir, 'home'), 'My number is 4711')).not.toEqual([])
})

test('the settings of a session whose harness died amid the bind hold in the next one, from its first turn', async () => {
  await using dying = startSupervisor({ harness: 'opencode', purpose: 'session' })
  await dying.until('booted')
  const { harness } = await client.health(dying.target)
  // It answers nothing any more, so that the settings are on their way when it ends.
  process.kill(harness.pid!, 'SIGSTOP')
  await client.bind(dying.target, bindRequest(model, { permissions: { default: 'allow', execute: 'ask' } }))
  process.kill(harness.pid!, 'SIGKILL')
  using reader = readJournal(client, dying.target)
  await reader.until(({ type }) => type === 'harness_exited')
  await client.startTurn(dying.target, { turn_id: 'asks', parts: text('run touch made.txt\nsay made') })
  const asked = await reader.until(({ type }) => type === 'permission_asked' || type === 'turn_finished')
  if (asked.type !== 'permission_asked') throw new Error(`not asked: ${JSON.stringify(asked)}`)
  await client.replyPermission(dying.target, asked.permission.id, 'allow')
  expect(await reader.finished('asks')).toMatchObject({ status: 'done' })
  expect(existsSync(path.join(dying.dir, 'workspace/made.txt'))).toBe(true)
})
