import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { replyTo } from './model.ts'
import { hasCheckpoint, hasMoved, told } from './moves.ts'
import { type Stack, startStack } from './stack.ts'
import { until } from '../until.ts'
import {
  createAgent,
  expectWholeLog,
  getSession,
  insist,
  openSession,
  poolHas,
  reaches,
  sandboxesOf,
  say,
  type Session,
  supervisorPid,
  textOf,
  warmPool,
} from './world.ts'

/** What is killed while checkpoints are taken, stored and restored. What agents do to files the tests do, in the workspaces. */
let stack: Stack
let agent: string
beforeAll(async () => {
  stack = await startStack({ apis: 2, workers: 2, env: { WARM_POOL_SIZE: '1', WARM_POOL_MAX_PROVISIONING: '1' } })
  agent = await createAgent(stack)
  await warmPool(stack, agent, 1)
}, 180_000)
afterAll(async () => stack?.[Symbol.asyncDispose](), 60_000)

/** Name of the one that it has. */
const sandboxOf = async (id: string): Promise<string> => (await getSession(stack, id)).task_arn ?? 'none'
const fileOf = async (id: string, name: string): Promise<string> =>
  path.join(stack.sandboxDir, await sandboxOf(id), 'workspace', name)
const read = async (id: string, name: string): Promise<string | null> => {
  const file = await fileOf(id, name)
  return existsSync(file) ? readFileSync(file, 'utf8') : null
}
/** A session whose agent has written files, with a checkpoint behind its turn. `bytes`: of one that does not compress, so that all takes longer. */
const openWithFiles = async (bytes = 0): Promise<string> => {
  const { id } = await openSession(stack, agent, { wait: true })
  writeFileSync(await fileOf(id, 'made.txt'), 'by the agent')
  if (bytes > 0) writeFileSync(await fileOf(id, 'large.bin'), randomBytes(bytes))
  expect(textOf((await say(stack, id, 'm-first words=2')).body)).toBe(replyTo('m-first words=2'))
  return id
}
const killSandbox = async (id: string): Promise<void> => {
  process.kill(supervisorPid(stack, await sandboxOf(id)), 'SIGKILL')
}
const killWorkers = async (): Promise<void> => {
  await Promise.all([0, 1].map((i) => stack.worker(i).kill('SIGKILL')))
  await Promise.all([0, 1].map((i) => stack.worker(i).start()))
}

test('a session whose sandbox is killed between two turns goes on with its files', async () => {
  const id = await openWithFiles()
  await hasCheckpoint(stack, id)
  await killSandbox(id)
  expect((await hasMoved(stack, id, 2)).data).toMatchObject({
    restored: { files: 1, problems: [] },
    interrupted_turn: null,
  })
  expect(await read(id, 'made.txt')).toBe('by the agent')
  expect(textOf((await say(stack, id, 'm-second words=2')).body)).toBe(replyTo('m-second words=2'))
  const [asked] = stack.model.askedFor('m-second')
  expect(asked?.conversation.map(({ text }) => text).join('\n')).toContain(replyTo('m-first words=2').trim())
  await expectWholeLog(stack, id)
}, 180_000)

test('killed amid a turn it loses that turn, and what that turn did to files', async () => {
  const id = await openWithFiles()
  await hasCheckpoint(stack, id)
  const reply = say(stack, id, 'm-cut words=400 gap=50')
  await until('it streams', 60_000, () => (stack.model.askedFor('m-cut')[0]?.sent ?? 0) >= 3 || null)
  writeFileSync(await fileOf(id, 'half.txt'), 'amid the turn')
  await killSandbox(id)
  expect(await reply).toMatchObject({ status: 409, body: { code: 'turn_interrupted' } })
  expect((await hasMoved(stack, id, 2)).data).toMatchObject({ restored: { files: 1 } })
  expect([await read(id, 'made.txt'), await read(id, 'half.txt')]).toEqual(['by the agent', null])
  await expectWholeLog(stack, id)
}, 180_000)

test('workers that are killed while they store a checkpoint leave it to others, once', async () => {
  const id = await openWithFiles(20 * 2 ** 20)
  await until('it is being stored', 60_000, async () => {
    const rows = await stack.sql("select from checkpoint where session_id = $1 and state = 'storing'", [id])
    return rows.length > 0 || (await told(stack, id, 'checkpoint.stored')).length > 0
  })
  await killWorkers()
  await hasCheckpoint(stack, id)
  expect(await told(stack, id, 'checkpoint.stored')).toHaveLength(1)
  await until('nothing else is kept', 60_000, async () => {
    const rows = await stack.sql('select state from checkpoint where session_id = $1', [id])
    return rows.length === 1
  })
  await expectWholeLog(stack, id)
}, 240_000)

test('workers and the sandbox that are killed while it is restored: the next one has the files', async () => {
  const id = await openWithFiles(20 * 2 ** 20)
  await hasCheckpoint(stack, id)
  await poolHas(stack, 1)
  await killSandbox(id)
  await until('it has another one', 60_000, async () => (await sandboxesOf(stack, id)).length >= 2)
  await Promise.all([killSandbox(id).catch(() => {}), killWorkers()])
  const moved = await until('it has moved', 120_000, async () => (await told(stack, id, 'sandbox_moved')).at(-1))
  expect(moved.data).toMatchObject({ restored: { files: 2, problems: [] } })
  await until('the file is there', 60_000, async () => (await read(id, 'made.txt')) === 'by the agent')
  expect(
    (await insist<object>(stack, 'POST', `/sessions/${id}/message`, { key: `${id}-1`, body: { text: 'm-on' } })).status,
  ).toBe(200)
  await expectWholeLog(stack, id)
}, 300_000)

test('a restart takes along what was changed since the last checkpoint', async () => {
  const id = await openWithFiles()
  await hasCheckpoint(stack, id)
  writeFileSync(await fileOf(id, 'later.txt'), 'behind the turn')
  // As when the store was down until now.
  await stack.sql('update session set checkpoint_seq = 0 where id = $1', [id])
  expect((await stack.http('POST', `/sessions/${id}/restart`)).status).toBe(200)
  expect((await hasMoved(stack, id, 2)).data).toMatchObject({ restored: { files: 2 } })
  expect(await read(id, 'later.txt')).toBe('behind the turn')
  await expectWholeLog(stack, id)
}, 180_000)

test('an API that is killed during forks has made each of them once or not at all', async () => {
  const id = await openWithFiles()
  await hasCheckpoint(stack, id)
  const keys = Array.from({ length: 8 }, (_, i) => `${id}-fork-${i}`)
  const first = keys.map((key) =>
    stack.http<Session>('POST', `/sessions/${id}/fork`, {}, { headers: { 'idempotency-key': key } }).catch(() => null),
  )
  await stack.api(0).kill('SIGKILL')
  const answered = (await Promise.all(first)).map((reply) => (reply?.status === 200 ? reply.body.id : null))
  await stack.api(0).start()
  const ids: string[] = []
  for (const [i, key] of keys.entries()) {
    const { body } = await insist<Session>(stack, 'POST', `/sessions/${id}/fork`, { key, body: {} })
    if (answered[i] !== null) expect(body.id).toBe(answered[i])
    ids.push(body.id)
  }
  expect(new Set(ids).size).toBe(keys.length)
  const rows = await stack.sql("select id from session where forked_from->>'session_id' = $1", [id])
  expect(rows).toHaveLength(keys.length)
  const fork = ids[0]!
  await reaches(stack, fork, 'ready', 120_000)
  expect(await read(fork, 'made.txt')).toBe('by the agent')
  for (const one of ids) await stack.http('DELETE', `/sessions/${one}`)
}, 300_000)
