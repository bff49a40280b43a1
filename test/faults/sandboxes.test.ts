import { existsSync } from 'node:fs'
import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { expect, test } from '@jest/globals'
import { replyTo } from './model.ts'
import type { Stack } from './stack.ts'
import { until } from '../until.ts'
import { withStack } from './with-stack.ts'
import {
  createAgent,
  eventsOf,
  expectWholeLog,
  getSession,
  leavesNothing,
  openSession,
  pauseJanitor,
  poolHas,
  say,
  sandboxesOf,
  type SandboxRow,
  supervisorPid,
  sweep,
  terminateWorkflow,
  textOf,
  turnsOf,
  warmPool,
  workflowRests,
  workflowStatus,
} from './world.ts'

let stack: Stack
let agent: string
withStack({ pool: 1, env: { WARM_POOL_MAX_PROVISIONING: '1' } }, async (started) => {
  stack = started
  await pauseJanitor(stack)
  agent = await createAgent(stack)
  await warmPool(stack, agent, 1)
})

const warmOne = async (): Promise<SandboxRow> => {
  await poolHas(stack, 1)
  const [sandbox] = await stack.sql<SandboxRow>("select * from sandbox where state = 'warm'")
  if (sandbox === undefined) throw new Error('no warm sandbox')
  return sandbox
}

const sandboxOf = async (sessionId: string): Promise<SandboxRow> => {
  const sandbox = (await sandboxesOf(stack, sessionId)).at(-1)
  if (sandbox === undefined) throw new Error('no sandbox')
  return sandbox
}

const stateOf = async ({ id }: SandboxRow): Promise<string | undefined> =>
  (await stack.sql<SandboxRow>('select * from sandbox where id = $1', [id]))[0]?.state

/** The janitor leaves alone what is younger than a minute. */
const age = (sandbox: SandboxRow): Promise<object[]> =>
  stack.sql(
    `update sandbox set created_at = created_at - interval '5 minutes', ready_at = ready_at - interval '5 minutes',
       claimed_at = claimed_at - interval '5 minutes' where id = $1`,
    [sandbox.id],
  )

const hasMoved = (sessionId: string, attempt: number): Promise<true> =>
  until(`session ${sessionId} is at attempt ${attempt}`, 30_000, async () => {
    const moves = (await eventsOf(stack, sessionId)).filter(({ type }) => type === 'sandbox_moved')
    return moves.at(-1)?.data['attempt'] === attempt || null
  })

/** The session answers, and its harness was told what had been said before. */
const knows = async (sessionId: string, text: string, earlier: string): Promise<void> => {
  const { status, body } = await say(stack, sessionId, text)
  expect({ status, text: textOf(body) }).toEqual({ status: 200, text: replyTo(text) })
  const [asked] = stack.model.askedFor(text)
  expect(asked?.conversation.map((message) => message.text).join('\n')).toContain(replyTo(earlier).trim())
}

test('a warm sandbox that is killed while it waits is replaced, and given to nobody', async () => {
  const sandbox = await warmOne()
  process.kill(supervisorPid(stack, sandbox.name), 'SIGKILL')
  await until('its row says so', 10_000, async () => (await stateOf(sandbox)) !== 'warm')
  await leavesNothing(stack, [sandbox.name])
  const next = await warmOne()
  expect(next.id).not.toBe(sandbox.id)
  const session = await openSession(stack, agent)
  expect(session).toMatchObject({ status: 'ready', spawn_mode: 'warm' })
  expect(await sandboxOf(session.id)).toMatchObject({ id: next.id })
})

test('a session whose sandbox is killed while it is idle moves by itself, and the next message is answered with the conversation known', async () => {
  await warmOne()
  const session = await openSession(stack, agent)
  expect(textOf((await say(stack, session.id, 'm-idle words=3')).body)).toBe(replyTo('m-idle words=3'))
  const first = await sandboxOf(session.id)
  process.kill(supervisorPid(stack, first.name), 'SIGKILL')
  await hasMoved(session.id, 2)
  await knows(session.id, 'm-moved words=2', 'm-idle words=3')
  expect((await turnsOf(stack, session.id)).map(({ status }) => status)).toEqual(['done', 'done'])
  const events = await expectWholeLog(stack, session.id)
  expect(events.filter(({ type }) => type === 'sandbox_moved').length).toBe(1)
  expect(await getSession(stack, session.id)).toMatchObject({ status: 'ready', attempt: 2 })
  await leavesNothing(stack, [first.name])
})

test('a message that is sent the moment the sandbox is killed runs at most once, and sent again it is answered', async () => {
  await warmOne()
  const session = await openSession(stack, agent)
  expect(textOf((await say(stack, session.id, 'm-calm words=3')).body)).toBe(replyTo('m-calm words=3'))
  process.kill(supervisorPid(stack, (await sandboxOf(session.id)).name), 'SIGKILL')
  const { status, body } = await say(stack, session.id, 'm-moment words=2')
  // Whether the dead sandbox had taken it cannot be known, unless the loss was seen before it came.
  if (status === 200) expect(textOf(body)).toBe(replyTo('m-moment words=2'))
  else expect({ status, body }).toMatchObject({ status: 409, body: { code: 'turn_interrupted' } })
  expect(stack.model.askedFor('m-moment').length).toBe(status === 200 ? 1 : 0)
  await hasMoved(session.id, 2)
  await knows(session.id, 'm-repeated words=2', 'm-calm words=3')
  await expectWholeLog(stack, session.id)
})

test('the janitor removes a sandbox that has no row', async () => {
  const sandbox = await warmOne()
  const file = path.join(stack.sandboxDir, sandbox.name, 'sandbox.json')
  const record: { created_at: string } = JSON.parse(await readFile(file, 'utf8'))
  await writeFile(file, JSON.stringify({ ...record, created_at: new Date(Date.now() - 300_000).toISOString() }))
  await stack.sql('delete from sandbox where id = $1', [sandbox.id])
  expect(await sweep(stack)).toMatchObject({ objects_removed: 1, rows_gone: 0, errors: 0 })
  expect(existsSync(path.dirname(file))).toBe(false)
  expect(stack.sandboxProcesses().filter(({ command }) => command.includes(sandbox.name))).toEqual([])
  // The same look tells the pool that one is missing.
  await poolHas(stack, 1)
})

test('the janitor writes down that a sandbox is not there: a session moves, a warm one is replaced', async () => {
  await warmOne()
  const session = await openSession(stack, agent)
  expect(textOf((await say(stack, session.id, 'm-there words=3')).body)).toBe(replyTo('m-there words=3'))
  // Whatever still asks the sandbox for something would see that it is not there before the janitor does.
  await until('its workflow rests', 20_000, () => workflowRests(stack, `session/${session.id}`))
  const [claimed, warm] = [await sandboxOf(session.id), await warmOne()]
  for (const sandbox of [claimed, warm]) {
    // First the directory, so that nobody sees a record of a dead process.
    const pid = supervisorPid(stack, sandbox.name)
    const taken = path.join(stack.dir, `taken-${sandbox.name}`)
    await rename(path.join(stack.sandboxDir, sandbox.name), taken)
    process.kill(pid, 'SIGKILL')
    await rm(taken, { recursive: true, force: true })
    await age(sandbox)
  }
  expect(await sweep(stack)).toMatchObject({ rows_gone: 2, objects_removed: 0, errors: 0 })
  await hasMoved(session.id, 2)
  await knows(session.id, 'm-elsewhere words=2', 'm-there words=3')
  await leavesNothing(stack, [claimed.name, warm.name])
  expect((await warmOne()).id).not.toBe(warm.id)
})

test('the janitor starts the workflow of a live session that has none', async () => {
  const session = await openSession(stack, agent, { wait: true })
  const id = `session/${session.id}`
  await until('its workflow rests', 20_000, () => workflowRests(stack, id))
  await terminateWorkflow(stack, id)
  await stack.sql("update session set created_at = created_at - interval '5 minutes' where id = $1", [session.id])
  // What Temporal lists lags behind a little.
  await until('the janitor sees it', 20_000, async () => {
    const repairs = await sweep(stack)
    return repairs['errors'] === 0 && repairs['workflows_started'] === 1
  })
  await until('its workflow runs again', 20_000, async () => (await workflowStatus(stack, id)) === 'RUNNING')
  expect(textOf((await say(stack, session.id, 'm-back words=2')).body)).toBe(replyTo('m-back words=2'))
  expect(await getSession(stack, session.id)).toMatchObject({ status: 'ready', attempt: 1 })
  await expectWholeLog(stack, session.id)
})

test('the janitor ends a session whose deadline has passed and whose workflow does not see to it', async () => {
  const session = await openSession(stack, agent, { wait: true })
  const { name } = await sandboxOf(session.id)
  const id = `session/${session.id}`
  await until('its workflow rests', 20_000, () => workflowRests(stack, id))
  await terminateWorkflow(stack, id)
  await stack.sql("update session set max_age_at = now() - interval '5 minutes' where id = $1", [session.id])
  expect(await sweep(stack)).toMatchObject({ sessions_expired: 1, errors: 0 })
  expect(await getSession(stack, session.id)).toMatchObject({ status: 'dead', end_reason: 'max_lifetime' })
  await leavesNothing(stack, [name])
})
