import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, expect, test } from '@jest/globals'
import type { BindRequest, TurnResult } from '../../domain/supervisor-protocol.ts'
import { createSupervisorClient } from '../../sandbox/supervisor-client.ts'
import { MASTER_KEY, bindRequest, readJournal, startSupervisor } from '../../test/supervisor.ts'
import { until } from '../../test/until.ts'

const client = createSupervisorClient({ masterKey: MASTER_KEY })
afterAll(async () => client[Symbol.asyncDispose]())

const NO_GATEWAY = { url: 'http://127.0.0.1:9', key: 'none' }

/** A booted sandbox with the scripted agent (`test/acp/harness/scripted-acp`). */
const booted = async () => {
  const supervisor = startSupervisor({ harness: 'scripted-acp', purpose: 'session' })
  await supervisor.until('booted')
  const inHome = (file: string): string => path.join(supervisor.dir, 'home', file)
  const linesOf = (file: string): string[] =>
    existsSync(inHome(file)) ? readFileSync(inHome(file), 'utf8').trim().split('\n') : []
  const { target } = supervisor
  return {
    ...supervisor,
    target,
    bind: (more: Partial<BindRequest> = {}) => client.bind(target, bindRequest(NO_GATEWAY, more)),
    start: (turn_id: string, text: string) => client.startTurn(target, { turn_id, parts: [{ type: 'text', text }] }),
    health: async () => (await client.health(target)).harness,
    isMade: (file: string) => existsSync(path.join(supervisor.dir, 'workspace', file)),
    hold: (method: string) => writeFileSync(inHome('hold'), method),
    release: () => rmSync(inHome('hold')),
    /** One request of each method. */
    refuse: (...methods: string[]) => writeFileSync(inHome('refuse'), methods.join('\n')),
    hasRefused: () => linesOf('refuse').join('') === '',
    /** The texts of each prompt that the agent has got. */
    prompts: () => linesOf('prompts.jsonl').map((line) => JSON.parse(line) as string[]),
    calls: (method: string) => linesOf('calls').filter((line) => line === method).length,
  }
}
const saidIn = ({ reply }: TurnResult): string =>
  reply?.parts.map(({ text }) => (typeof text === 'string' ? text : '')).join('') ?? ''

test('a turn that is interrupted while its session is being opened never reaches the agent', async () => {
  await using sandbox = await booted()
  sandbox.hold('session/new')
  await sandbox.bind({ prompt: 'Be brief.' })
  using journal = readJournal(client, sandbox.target)
  await sandbox.start('interrupted', 'touch made\nsay x')
  await client.interrupt(sandbox.target, 'interrupted')
  sandbox.release()
  expect(await journal.finished('interrupted')).toMatchObject({ status: 'cancelled', reply: null })
  await sandbox.start('next', 'say next')
  expect(saidIn(await journal.finished('next'))).toBe('next')
  expect(sandbox.prompts()).toEqual([['Be brief.', 'say next']])
  expect(sandbox.isMade('made')).toBe(false)
})

test('an interrupted turn does not wait for its session, whose opening goes on', async () => {
  await using sandbox = await booted()
  const { pid } = await sandbox.health()
  sandbox.hold('session/new')
  await sandbox.bind({ prompt: 'Be brief.' })
  using journal = readJournal(client, sandbox.target)
  await until('the session is being opened', 10_000, () => sandbox.calls('session/new') === 2)
  await sandbox.start('interrupted', 'say x')
  await client.interrupt(sandbox.target, 'interrupted')
  expect(await journal.finished('interrupted')).toMatchObject({ status: 'cancelled' })
  sandbox.release()
  await sandbox.start('next', 'say next')
  expect(saidIn(await journal.finished('next'))).toBe('next')
  expect(sandbox.calls('session/new')).toBe(2)
  expect(await sandbox.health()).toMatchObject({ pid, restarts: 0 })
})

const refusals: [string, Partial<BindRequest>][] = [
  ['session/new', { prompt: 'Be brief.' }],
  ['session/set_mode', { permissions: { default: 'ask' } }],
]
test.each(refusals)('a session whose %s was refused is made by the next turn', async (method, settings) => {
  await using sandbox = await booted()
  const before = sandbox.calls(method)
  sandbox.refuse(method)
  await sandbox.bind(settings)
  using journal = readJournal(client, sandbox.target)
  await until('the first attempt was refused', 10_000, sandbox.hasRefused)
  sandbox.refuse(method)
  await sandbox.start('refused', 'say x')
  expect(await journal.finished('refused')).toMatchObject({
    status: 'failed',
    error: { code: 'harness_error', message: `${method} is refused` },
  })
  await sandbox.start('next', 'say next')
  expect(saidIn(await journal.finished('next'))).toBe('next')
  expect(sandbox.prompts()).toEqual([[...(settings.prompt == null ? [] : [settings.prompt]), 'say next']])
  expect(sandbox.calls(method) - before).toBe(3)
  expect(await sandbox.health()).toMatchObject({ restarts: 0 })
})

test('a conversation that can be neither loaded nor begun anew after a restart is told to the session of the next turn, once', async () => {
  await using sandbox = await booted()
  await sandbox.bind({ prompt: 'Be brief.' })
  using journal = readJournal(client, sandbox.target)
  await sandbox.start('first', 'say 4711')
  await journal.finished('first')
  sandbox.refuse('session/load', 'session/new')
  await sandbox.start('dies', 'die')
  expect(await journal.finished('dies')).toMatchObject({ error: { code: 'harness_exited' } })
  await journal.until(({ type }) => type === 'harness_restarted')
  await until('both were refused', 10_000, sandbox.hasRefused)
  await sandbox.start('next', 'say next')
  expect(await journal.finished('next')).toMatchObject({ status: 'done' })
  const [system, conversation, ...asked] = sandbox.prompts().at(-1)!
  expect({ system, asked }).toEqual({ system: 'Be brief.', asked: ['say next'] })
  expect(conversation).toContain('<assistant>\n4711\n</assistant>')
})

const zip = { type: 'file', mime: 'application/zip', url: 'data:application/zip;base64,AA==' }
test.each([
  ['an attachment that the agent cannot read', [zip], []],
  ['the agent', [{ type: 'text', text: 'fail no' }], [['Be brief.', 'fail no']]],
])('what goes before the first prompt goes before the next one when that was refused: by %s', async (_, parts, got) => {
  await using sandbox = await booted()
  await sandbox.bind({ prompt: 'Be brief.', history: [{ role: 'user', text: 'My number is 4711.' }] })
  using journal = readJournal(client, sandbox.target)
  await client.startTurn(sandbox.target, { turn_id: 'refused', parts })
  expect(await journal.finished('refused')).toMatchObject({ status: 'failed', error: { code: 'harness_error' } })
  await sandbox.start('next', 'say next')
  await journal.finished('next')
  await sandbox.start('last', 'say last')
  await journal.finished('last')
  const history = expect.stringContaining('My number is 4711.')
  const told = ([system, ...asked]: string[]) => [system, history, ...asked]
  expect(sandbox.prompts()).toEqual([...got.map(told), ['Be brief.', history, 'say next'], ['say last']])
})

test('what has gone before a prompt that the agent began to answer is not told again', async () => {
  await using sandbox = await booted()
  await sandbox.bind({ prompt: 'Be brief.' })
  using journal = readJournal(client, sandbox.target)
  await sandbox.start('broken', 'say well\nfail no')
  expect(await journal.finished('broken')).toMatchObject({ status: 'failed' })
  await sandbox.start('next', 'say next')
  await journal.finished('next')
  expect(sandbox.prompts()).toEqual([['Be brief.', 'say well\nfail no'], ['say next']])
})

test('a turn that ended well is done, also when a request beside it could not reach the gateway', async () => {
  await using sandbox = await booted()
  await sandbox.bind()
  using journal = readJournal(client, sandbox.target)
  await sandbox.start('well', 'ask\nsay well')
  expect(await journal.finished('well')).toMatchObject({ status: 'done', usage: { requests: 1 } })
  await sandbox.start('failed', 'ask\nfail no answer')
  expect(await journal.finished('failed')).toMatchObject({ status: 'failed', error: { code: 'gateway_unreachable' } })
})

test('a session that is opened again after a restart, before anybody has used it, is told its prompt once', async () => {
  await using sandbox = await booted()
  await sandbox.bind({ prompt: 'Be brief.' })
  using journal = readJournal(client, sandbox.target)
  await until('the session is open', 10_000, () => sandbox.calls('session/set_mode') === 2)
  process.kill((await sandbox.health()).pid!, 'SIGKILL')
  await journal.until(({ type }) => type === 'harness_restarted')
  await sandbox.start('next', 'say next')
  await journal.finished('next')
  expect(sandbox.prompts()).toEqual([['Be brief.', 'say next']])
})
