import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { Agent } from 'undici'
import type { Configuration, Health } from '../domain/supervisor-protocol.ts'
import { bootSilenceMs, configure } from '../kubernetes/configure.ts'
import { verdictOf } from '../kubernetes/status.ts'
import { createSupervisorClient } from '../sandbox/supervisor-client.ts'
import { type ScriptedModel, startScriptedModel } from '../test/scripted-model.ts'
import {
  MASTER_KEY,
  bindRequest,
  isRunning,
  makeRepository,
  readJournal,
  startPodSupervisor,
} from '../test/supervisor.ts'

type Pod = Awaited<ReturnType<typeof startPodSupervisor>>

const client = createSupervisorClient({ masterKey: MASTER_KEY })
const agent = new Agent({ bodyTimeout: bootSilenceMs })
let model: ScriptedModel
beforeAll(async () => {
  model = await startScriptedModel()
})
afterAll(async () => {
  await model.close()
  await agent.close()
  await client[Symbol.asyncDispose]()
})

const configurationFor = (pod: Pod, change: Partial<Configuration> = {}): Configuration => ({
  sandbox_id: pod.target.id,
  template_hash: 'hash',
  purpose: 'session',
  harness: { id: 'light' },
  repo_url: '',
  branch: 'main',
  setup_command: null,
  env: {},
  ...change,
})

/** As the Kubernetes driver does it. */
const boot = async (pod: Pod, change: Partial<Configuration> = {}, token = pod.token) => {
  const told: Health[] = []
  const target = { endpoint: pod.target.endpoint, token, agent }
  const onHealth = (health: Health): void => void told.push(health)
  const signal = AbortSignal.timeout(110_000)
  const end = await configure(target, configurationFor(pod, change), { signal, onHealth })
  return { end, told, states: told.map(({ state, phase }) => phase ?? state) }
}

const ask = async (pod: Pod, route: string, init: RequestInit = {}) => {
  const reply = await fetch(`${pod.target.endpoint}${route}`, init)
  return { status: reply.status, text: await reply.text() }
}
const known = (pod: Pod) => ({ authorization: `Bearer ${pod.token}` })

const CALLS = [
  ['GET', '/healthz'],
  ['POST', '/bind'],
  ['POST', '/turns'],
  ['POST', '/interrupt'],
  ['GET', '/events'],
  ['GET', '/messages'],
  ['GET', '/logs'],
  ['GET', '/configure'],
] as const

test('a sandbox is told what it is over HTTP, and says each step until it has booted', async () => {
  await using pod = await startPodSupervisor()
  const repo_url = makeRepository({ 'a.txt': 'content\n' })
  expect((await ask(pod, '/healthz')).status).toBe(503)
  const { end, told, states } = await boot(pod, { repo_url, setup_command: 'cp a.txt b.txt' })
  expect(states).toEqual([
    'booting',
    'cloning_repo',
    'installing_deps',
    'harness_listening',
    'waiting_harness',
    'booted',
  ])
  expect(told.at(-1)).toMatchObject({
    sandbox_id: pod.target.id,
    template_hash: 'hash',
    state: 'booted',
    harness: { id: 'light', running: true },
    failure: null,
  })
  expect(end).toEqual({ is: 'ended', last: told.at(-1) })
  expect(readFileSync(path.join(pod.dir, 'workspace/b.txt'), 'utf8')).toBe('content\n')
  expect(await ask(pod, '/healthz')).toEqual({ status: 200, text: '' })
  expect(await client.health(pod.target)).toEqual(told.at(-1))
  rmSync(repo_url.slice('file://'.length), { recursive: true })
})

test('one for the pool is Ready when it is warm, goes through its own calls before, and serves a session', async () => {
  await using pod = await startPodSupervisor()
  const { told } = await boot(pod, { purpose: 'pool' })
  expect(told.map(({ state }) => state)).toEqual([...told.slice(1).map(() => 'booting'), 'warm'])
  expect(pod.output()).toContain('warmed up')
  expect(pod.output()).not.toContain('not rehearsed')
  expect((await ask(pod, '/healthz')).status).toBe(200)
  await client.bind(pod.target, bindRequest(model))
  using journal = readJournal(client, pod.target)
  await client.startTurn(pod.target, { turn_id: 'one', parts: [{ type: 'text', text: 'say hello' }] })
  expect(await journal.finished('one')).toMatchObject({ status: 'done' })
  const again = await boot(pod, { purpose: 'pool' })
  expect(again).toMatchObject({ end: { is: 'ended', last: { state: 'bound' } }, states: ['bound'] })
})

test('the same configuration is answered the same by any number of callers; another one is refused, and changes nothing', async () => {
  await using pod = await startPodSupervisor()
  const same = { setup_command: 'sleep 0.5; echo x >> times.txt', env: { B: '2', A: '1' } }
  const [first, second] = await Promise.all([boot(pod, same), boot(pod, { ...same, env: { A: '1', B: '2' } })])
  expect(first.end).toEqual(second.end)
  expect(second.states.slice(-3)).toEqual(first.states.slice(-3))
  expect(await boot(pod, same)).toMatchObject({ end: first.end, states: ['booted'] })
  for (const other of [{ purpose: 'pool' }, { branch: 'other' }, { env: { A: '2' } }] as const)
    expect((await boot(pod, { ...same, ...other })).end).toEqual({
      is: 'refused',
      reason: expect.stringMatching(/409: .*another configuration/),
    })
  expect(readFileSync(path.join(pod.dir, 'workspace/times.txt'), 'utf8')).toBe('x\n')
})

test('a caller who goes away takes nothing along: the boot goes on, and the next one hears how', async () => {
  await using pod = await startPodSupervisor()
  const gone = new AbortController()
  const setup = { setup_command: 'sleep 0.7' }
  const body = configurationFor(pod, setup)
  const target = { endpoint: pod.target.endpoint, token: pod.token, agent }
  const cut = await configure(target, body, { signal: gone.signal, onHealth: () => gone.abort() })
  expect(cut.is).toBe('broken')
  expect(await boot(pod, setup)).toMatchObject({ end: { is: 'ended', last: { state: 'booted' } } })
})

test('a long step is no silence: an empty line comes every five seconds', async () => {
  await using pod = await startPodSupervisor()
  const body = JSON.stringify(configurationFor(pod, { setup_command: 'sleep 6' }))
  const { text } = await ask(pod, '/configure', { method: 'POST', headers: known(pod), body })
  const lines = text.split('\n')
  expect(lines.indexOf('')).toBeGreaterThan(0)
  expect(lines.indexOf('')).toBeLessThan(lines.length - 1)
  expect(JSON.parse(lines.findLast((line) => line !== '') ?? '')).toMatchObject({ state: 'booted' })
})

test('before it is configured it does nothing for anybody, and nothing at all for whoever has another token', async () => {
  await using pod = await startPodSupervisor()
  for (const [method, route] of CALLS) {
    const { status, text } = await ask(pod, route, { method, headers: known(pod) })
    expect([route, status, text]).toEqual([route, 503, expect.stringContaining('not_configured')])
  }
  for (const authorization of ['', 'Bearer ', 'Bearer wrong', `Bearer ${pod.token}x`, pod.token])
    for (const [method, route] of [...CALLS.slice(1), ['POST', '/configure'] as const])
      expect((await ask(pod, route, { method, headers: { authorization } })).status).toBe(401)
  expect((await boot(pod, {}, 'wrong')).end).toMatchObject({ is: 'broken', reason: expect.stringContaining('401') })
  expect(existsSync(path.join(pod.dir, 'state.json'))).toBe(false)
  expect((await boot(pod)).end).toMatchObject({ is: 'ended', last: { state: 'booted' } })
})

test('an empty sandbox under an old name is not taken for the one that is gone', async () => {
  await using pod = await startPodSupervisor()
  using journal = readJournal(client, pod.target)
  const turn = { turn_id: 'one', parts: [{ type: 'text', text: 'say hello' }] }
  const gone = { name: 'SupervisorUnreachable', message: expect.stringContaining('empty sandbox') }
  await expect(client.health(pod.target)).rejects.toMatchObject(gone)
  await expect(client.bind(pod.target, bindRequest(model))).rejects.toMatchObject(gone)
  await expect(client.startTurn(pod.target, turn)).rejects.toMatchObject(gone)
  await expect(journal.finished('one')).rejects.toMatchObject(gone)
})

test('a configuration of another sandbox, of a harness that the image lacks, or that is wrong is refused by its field', async () => {
  await using pod = await startPodSupervisor()
  const refusal = async (change: object) => {
    const body = JSON.stringify({ ...configurationFor(pod), ...change })
    const { status, text } = await ask(pod, '/configure', { method: 'POST', headers: known(pod), body })
    const { error } = JSON.parse(text) as { error: { message: string; details?: { path: string }[] } }
    return { status, paths: error.details?.map(({ path: field }) => field), message: error.message }
  }
  expect(await refusal({ sandbox_id: 'other' })).toMatchObject({ status: 422, paths: ['sandbox_id'] })
  expect(await refusal({ harness: { id: 'none' } })).toMatchObject({
    status: 422,
    paths: ['harness.id'],
    message: expect.stringContaining('light, opencode'),
  })
  const wrong = { purpose: 'x', harness: null, repo_url: 1, branch: null, setup_command: 1, env: { 'a b': 'c' } }
  expect(await refusal(wrong)).toMatchObject({
    status: 422,
    paths: ['purpose', 'harness', 'harness.id', 'repo_url', 'branch', 'setup_command', 'env.a b'],
  })
  const { status } = await ask(pod, '/configure', { method: 'POST', headers: known(pod), body: '{' })
  expect(status).toBe(400)
  expect((await boot(pod)).end).toMatchObject({ is: 'ended' })
})

test('what a caller adds to the configuration does not become the sandbox’ own: not its token, directory or address', async () => {
  await using pod = await startPodSupervisor()
  const more = { token: 'mine', dir: '/nowhere', listen: { host: '0.0.0.0', port: 1 } }
  const { end } = await boot(pod, more as Partial<Configuration>)
  expect(end).toMatchObject({ is: 'ended', last: { state: 'booted' } })
  expect(pod.state()).toMatchObject({ state: 'booted', port: Number(new URL(pod.target.endpoint).port) })
  expect((await ask(pod, '/logs', { headers: { authorization: 'Bearer mine' } })).status).toBe(401)
})

test('nothing of the pod reaches the tools: neither its variables nor the token', async () => {
  const HTTP_PROXY = 'http://of-the-pod'
  await using pod = await startPodSupervisor({ HTTP_PROXY, LAP_TERMINATION_LOG: '/nowhere/log' })
  await boot(pod, { purpose: 'pool', setup_command: 'env > env.txt', env: { GIVEN: 'value' } })
  const names = readFileSync(path.join(pod.dir, 'workspace/env.txt'), 'utf8')
  expect(names).toContain('GIVEN=value')
  // The id by which tools and their leftovers are known, and the mark of this supervisor.
  expect([...names.matchAll(/^LAP_\w+/gm)].map(String).toSorted()).toEqual(['LAP_SANDBOX_ID', 'LAP_SUPERVISOR'])
  expect(names).not.toMatch(/HARNESS_PATH|HTTP_PROXY/)
  expect(names).not.toContain(pod.token)
})

test.each([
  ['clone_failed', { repo_url: 'file:///nowhere/at/all' }, 'nowhere'],
  ['setup_failed', { setup_command: 'echo "no such package"; exit 3' }, 'no such package'],
  ['setup_failed', { setup_command: `printf '"%.0sé' $(seq 3000); echo end; exit 3` }, 'end'],
] as const)(
  'a boot that fails (%s) is told in the stream and left as last words, and the container ends with 1',
  async (code, change, words) => {
    const file = path.join(mkdtempSync(path.join(tmpdir(), 'lap-words-')), 'termination-log')
    writeFileSync(file, 'what a tool wrote there')
    await using pod = await startPodSupervisor({ LAP_TERMINATION_LOG: file })
    const { end, told } = await boot(pod, change)
    expect(end).toMatchObject({ is: 'ended', last: { state: 'failed', failure: { code } } })
    expect(told.at(-1)?.failure?.message).toContain(words)
    expect(await pod.exited).toEqual({ code: 1, signal: null })
    const message = readFileSync(file, 'utf8')
    expect(Buffer.byteLength(message)).toBeLessThanOrEqual(4_096)
    const state = { terminated: { exitCode: 1, reason: 'Error', message } }
    const seen = {
      object: { metadata: { name: 'lap-1' } },
      pod: {
        metadata: { name: 'lap-1' },
        status: { phase: 'Failed', containerStatuses: [{ name: 'harness', state }] },
      },
    }
    expect(verdictOf(seen as Parameters<typeof verdictOf>[0], { unschedulableMs: 0 })).toMatchObject({
      is: 'failed',
      code,
      message: expect.stringContaining(words),
    })
    rmSync(path.dirname(file), { recursive: true })
  },
)

test('a harness that dies before a session has the sandbox leaves last words, too', async () => {
  const file = path.join(mkdtempSync(path.join(tmpdir(), 'lap-words-')), 'termination-log')
  writeFileSync(file, '')
  await using pod = await startPodSupervisor({ LAP_TERMINATION_LOG: file })
  const { end, told } = await boot(pod, { harness: { id: 'opencode' } })
  const pid = told.at(-1)?.harness.pid ?? null
  // 0 would be all processes of this group, the tests among them.
  if (pid === null) throw new Error(`the harness does not run: ${JSON.stringify(end)}`)
  process.kill(pid, 'SIGKILL')
  expect(await pod.exited).toEqual({ code: 1, signal: null })
  expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ code: 'harness_exited' })
  rmSync(path.dirname(file), { recursive: true })
}, 120_000)

test('a directory that cannot be written is a failed set-up that names it', async () => {
  const file = path.join(mkdtempSync(path.join(tmpdir(), 'lap-words-')), 'termination-log')
  writeFileSync(file, '')
  await using pod = await startPodSupervisor({ LAP_DIR: '/dev/null/nowhere', LAP_TERMINATION_LOG: file })
  const { end } = await boot(pod)
  const failure = { code: 'setup_failed', message: expect.stringContaining('/dev/null/nowhere') }
  expect(end).toMatchObject({ is: 'ended', last: { state: 'failed', failure } })
  expect(await pod.exited).toEqual({ code: 1, signal: null })
  expect(JSON.parse(readFileSync(file, 'utf8'))).toEqual(failure)
  rmSync(path.dirname(file), { recursive: true })
})

test.each([
  [{ LAP_TOKEN_SHA256: 'abc' }, 'LAP_TOKEN_SHA256'],
  [{ LAP_SANDBOX_ID: '' }, 'LAP_SANDBOX_ID'],
  [{ LAP_LISTEN: '4090' }, 'LAP_LISTEN'],
  [{ LAP_LISTEN: '0.0.0.0:65536' }, 'LAP_LISTEN'],
  [{ LAP_DIR: 'work' }, 'LAP_DIR'],
  [{ HARNESS_PATH: '/nowhere/at/all' }, 'HARNESS_PATH'],
])('a pod that was given %j ends with 1, and says which variable is wrong', async (env, name) => {
  const file = path.join(mkdtempSync(path.join(tmpdir(), 'lap-words-')), 'termination-log')
  writeFileSync(file, '')
  const ended = await startPodSupervisor({ ...env, LAP_TERMINATION_LOG: file }).then(
    async (pod) => pod.exited.then(() => pod.output()),
    String,
  )
  expect(ended).toContain(name)
  expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({
    code: 'setup_failed',
    message: expect.stringContaining(name),
  })
  rmSync(path.dirname(file), { recursive: true })
})

test('SIGTERM ends one that was never configured at once, and one that boots with all that it has started', async () => {
  await using idle = await startPodSupervisor()
  const since = performance.now()
  idle.process.kill('SIGTERM')
  expect(await idle.exited).toEqual({ code: 0, signal: null })
  expect(performance.now() - since).toBeLessThan(2_500)

  await using pod = await startPodSupervisor()
  const booting = boot(pod, { setup_command: 'setsid sleep 600 & echo $! > pid; sleep 600' })
  const file = path.join(pod.dir, 'workspace', 'pid')
  while (!existsSync(file) || readFileSync(file, 'utf8') === '') await sleep(20)
  pod.process.kill('SIGTERM')
  expect(await pod.exited).toEqual({ code: 0, signal: null })
  expect((await booting).end.is).toBe('broken')
  expect(isRunning(Number(readFileSync(file, 'utf8')))).toBe(false)
})
