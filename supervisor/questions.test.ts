import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { ALLOW_ALL } from '../domain/permission.ts'
import type { PermissionPolicy } from '../domain/permission.ts'
import type { JournalEntry, TurnResult } from '../domain/supervisor-protocol.ts'
import { createSupervisorClient } from '../sandbox/supervisor-client.ts'
import { type ScriptedModel, startScriptedModel } from '../test/scripted-model.ts'
import { MASTER_KEY, bindRequest, readJournal, startSupervisor } from '../test/supervisor.ts'

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
const bound = async (permissions: PermissionPolicy = { default: 'ask' }) => {
  const supervisor = startSupervisor({ harness: 'light', purpose: 'session' })
  await supervisor.until('booted')
  await client.bind(supervisor.target, bindRequest(model, { permissions }))
  return supervisor
}
const saidIn = ({ reply }: TurnResult): string =>
  reply?.parts.map(({ text: words }) => (typeof words === 'string' ? words : '')).join('') ?? ''
type Journal = ReturnType<typeof readJournal>
type Asked = JournalEntry & { type: 'permission_asked' }
const asked = async (journal: Journal): Promise<Asked> =>
  (await journal.until(({ type }) => type === 'permission_asked')) as Asked
const replies = (journal: Journal) => journal.entries.filter(({ type }) => type === 'permission_replied')
const ask = text('ask execute rm -rf build\nsay done')

test('a question waits in the journal for its answer; the answer given again is harmless, another one is refused', async () => {
  await using sandbox = await bound()
  using journal = readJournal(client, sandbox.target)
  await client.startTurn(sandbox.target, { turn_id: 't', parts: ask })
  const { permission, turn_id } = await asked(journal)
  expect({ turn_id, ...permission }).toMatchObject({ turn_id: 't', kind: 'execute', title: 'rm -rf build' })
  for (let i = 0; i < 3; i++) await client.replyPermission(sandbox.target, permission.id, 'allow')
  await expect(client.replyPermission(sandbox.target, permission.id, 'deny')).rejects.toMatchObject({
    code: 'conflict',
    cause: { code: 'already_replied' },
  })
  expect(saidIn(await journal.finished('t'))).toBe('allow: rm -rf build\ndone')
  await client.replyPermission(sandbox.target, permission.id, 'allow')
  expect(replies(journal)).toMatchObject([{ permission_id: permission.id, decision: 'allow', by: 'user' }])
  await expect(client.replyPermission(sandbox.target, 'per_never', 'allow')).rejects.toMatchObject({
    code: 'not_found',
  })
})

test('answers that come at once reach the harness once', async () => {
  await using sandbox = await bound()
  using journal = readJournal(client, sandbox.target)
  await client.startTurn(sandbox.target, { turn_id: 't', parts: ask })
  const { permission } = await asked(journal)
  const answers = Array.from({ length: 20 }, (_, i) =>
    client.replyPermission(sandbox.target, permission.id, i % 2 === 0 ? 'allow' : 'deny').then(
      () => 'taken',
      () => 'refused',
    ),
  )
  expect((await Promise.all(answers)).toSorted()).toEqual([...Array(10).fill('refused'), ...Array(10).fill('taken')])
  await journal.finished('t')
  expect(replies(journal)).toHaveLength(1)
})

test.each([
  ['allow', ALLOW_ALL, 'allow'],
  ['deny', { default: 'deny' } satisfies PermissionPolicy, 'deny'],
  ['one for its kind', { default: 'ask', execute: 'deny' } satisfies PermissionPolicy, 'deny'],
])('a policy of %s answers by itself, and asks nobody', async (_, policy, answer) => {
  await using sandbox = await bound(policy)
  using journal = readJournal(client, sandbox.target)
  await client.startTurn(sandbox.target, { turn_id: 't', parts: ask })
  expect(saidIn(await journal.finished('t'))).toBe(`${answer}: rm -rf build\ndone`)
  expect(journal.entries.filter(({ type }) => type.startsWith('permission_'))).toEqual([])
})

test('a question whose turn is interrupted is over before the turn is, and takes no answer', async () => {
  await using sandbox = await bound()
  using journal = readJournal(client, sandbox.target)
  await client.startTurn(sandbox.target, { turn_id: 't', parts: ask })
  const { permission } = await asked(journal)
  await client.interrupt(sandbox.target, 't')
  expect(await journal.finished('t')).toMatchObject({ status: 'cancelled' })
  expect(journal.entries.slice(-2)).toMatchObject([
    { type: 'permission_replied', permission_id: permission.id, decision: 'deny', by: 'turn_ended' },
    { type: 'turn_finished' },
  ])
  await expect(client.replyPermission(sandbox.target, permission.id, 'allow')).rejects.toMatchObject({
    code: 'not_found',
  })
})

test('an interrupt is answered at once by a harness that hangs, which is ended and started again for the next turn', async () => {
  await using sandbox = await bound()
  using journal = readJournal(client, sandbox.target)
  await client.startTurn(sandbox.target, { turn_id: 'hangs', parts: text('deaf') })
  const since = performance.now()
  await client.interrupt(sandbox.target, 'hangs')
  const answeredMs = performance.now() - since
  await client.interrupt(sandbox.target, 'hangs')
  expect(await journal.finished('hangs')).toMatchObject({ status: 'cancelled' })
  expect(performance.now() - since).toBeGreaterThan(4_500)
  expect(answeredMs).toBeLessThan(4_500)
  await client.startTurn(sandbox.target, { turn_id: 'next', parts: text('say well') })
  expect(saidIn(await journal.finished('next'))).toBe('well')
  expect(journal.entries.filter(({ type }) => type === 'harness_exited')).toHaveLength(1)
})
