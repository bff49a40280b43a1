import { rename, rm, writeFile } from 'node:fs/promises'
import { expect, test } from '@jest/globals'
import type { Stack } from '../faults/stack.ts'
import { until } from '../until.ts'
import { withStack } from '../faults/with-stack.ts'
import {
  createAgent,
  expectWholeLog,
  getSession,
  leavesNothing,
  openSession,
  reaches,
  sandboxesOf,
  supervisorPid,
  workflowStatus,
} from '../faults/world.ts'
import { wakeSession } from '../pool/world.ts'

/** Starts that go wrong, without a pool: each is typed, says why, and leaves nothing. */
let stack: Stack
withStack({}, (started) => {
  stack = started
})

type Failed = { status: string; end_reason: string; failure_code: string; failure_reason: string; attempt: number }
const failureOf = async (sessionId: string): Promise<Failed> => {
  const [row] = await stack.sql<Failed>('select * from session where id = $1', [sessionId])
  return row!
}

const failsCleanly = async (sessionId: string): Promise<Failed> => {
  await reaches(stack, sessionId, 'failed', 40_000)
  await until('its workflow has ended', 20_000, async () => {
    return (await workflowStatus(stack, `session/${sessionId}`)) === 'COMPLETED'
  })
  const sandboxes = await sandboxesOf(stack, sessionId)
  await leavesNothing(
    stack,
    sandboxes.map(({ name }) => name),
  )
  const log = await expectWholeLog(stack, sessionId)
  const failed = await failureOf(sessionId)
  expect(log.at(-1)).toMatchObject({
    type: 'session.ended',
    data: { end_reason: failed.end_reason, code: failed.failure_code },
  })
  expect(failed.end_reason).toBe(`failed:${failed.failure_code}`)
  return failed
}

test('a repository that cannot be cloned fails as clone_failed, at the first try, with git’s words', async () => {
  const agent = await createAgent(stack, { repo_url: `file://${stack.dir}/no-such-repository` })
  const { id } = await openSession(stack, agent)
  const failed = await failsCleanly(id)
  expect(failed).toMatchObject({ failure_code: 'clone_failed', attempt: 1 })
  expect(failed.failure_reason).toContain('no-such-repository')
  const { body } = await stack.http<{ detected_issues: { code: string }[] }>('GET', `/sessions/${id}/diagnose`)
  expect(JSON.stringify(body)).toContain('clone_failed')
})

test('a branch that is not there fails as clone_failed', async () => {
  const { id } = await openSession(stack, await createAgent(stack, { branch: 'no-such-branch' }))
  const failed = await failsCleanly(id)
  expect(failed).toMatchObject({ failure_code: 'clone_failed' })
  expect(failed.failure_reason).toContain('no-such-branch')
})

test('a set-up command that fails is setup_failed, at the first try, with its last lines', async () => {
  const agent = await createAgent(stack, { setup_cmd: 'echo one; echo "two is not enough" >&2; exit 7' })
  const failed = await failsCleanly((await openSession(stack, agent)).id)
  expect(failed).toMatchObject({ failure_code: 'setup_failed', attempt: 1 })
  expect(failed.failure_reason).toContain('ended with 7')
  expect(failed.failure_reason).toContain('two is not enough')
})

test('a harness that the worker does not have is told at once, and no other is tried', async () => {
  const agent = await createAgent(stack)
  await stack.sql("update agent set harness_id = 'nowhere' where id = $1", [agent])
  const failed = await failsCleanly((await openSession(stack, agent)).id)
  expect(failed).toMatchObject({ failure_code: 'image_pull', attempt: 1 })
  expect(failed.failure_reason).toContain('nowhere')
})

test('a sandbox that dies while it starts is tried once more', async () => {
  const agent = await createAgent(stack, { setup_cmd: 'sleep 1.5' })
  const { id } = await openSession(stack, agent)
  const first = await until('its sandbox', 20_000, async () => (await sandboxesOf(stack, id))[0])
  const pid = await until('its supervisor', 20_000, () => supervisorPid(stack, first.name))
  process.kill(pid, 'SIGKILL')
  expect(await reaches(stack, id, 'ready', 40_000)).toMatchObject({ attempt: 2 })
  await stack.http('DELETE', `/sessions/${id}`)
})

test('one that dies each time fails as harness_exited, with what was seen of it', async () => {
  const agent = await createAgent(stack, { setup_cmd: 'kill -9 $PPID' })
  const { id } = await openSession(stack, agent)
  expect(await failsCleanly(id)).toMatchObject({ failure_code: 'harness_exited', attempt: 2 })
  const rows = await stack.sql<{ failure_code: string; evidence: { alive: boolean } }>(
    'select failure_code, evidence from sandbox where session_id = $1',
    [id],
  )
  expect(rows).toMatchObject([
    { failure_code: 'harness_exited', evidence: { alive: false } },
    { failure_code: 'harness_exited', evidence: { alive: false } },
  ])
})

test('a start that takes longer than it may fails as start_timeout', async () => {
  const agent = await createAgent(stack, { setup_cmd: 'sleep 60' })
  const { id } = await openSession(stack, agent)
  await until('its sandbox starts', 20_000, async () => (await sandboxesOf(stack, id))[0]?.state === 'provisioning')
  await stack.sql("update session set creating_deadline_at = now() + interval '1 second' where id = $1", [id])
  await wakeSession(stack, id)
  expect(await failsCleanly(id)).toMatchObject({ failure_code: 'start_timeout' })
})

test('a sandbox that cannot even be made, for a reason that nobody foresaw, fails as setup_failed, in the words of the machine', async () => {
  const agent = await createAgent(stack)
  const aside = `${stack.sandboxDir}.aside`
  await rename(stack.sandboxDir, aside)
  await writeFile(stack.sandboxDir, '')
  const { id } = await openSession(stack, agent)
  await reaches(stack, id, 'failed', 40_000)
  await rm(stack.sandboxDir)
  await rename(aside, stack.sandboxDir)
  expect(await failsCleanly(id)).toMatchObject({
    failure_code: 'setup_failed',
    failure_reason: expect.stringContaining('EEXIST'),
  })
})

test('a failed session stays as it failed', async () => {
  const agent = await createAgent(stack, { setup_cmd: 'exit 1' })
  const { id } = await openSession(stack, agent)
  await failsCleanly(id)
  expect((await stack.http('DELETE', `/sessions/${id}`)).body).toMatchObject({ status: 'failed' })
  expect(await getSession(stack, id)).toMatchObject({ status: 'failed', end_reason: 'failed:setup_failed' })
  expect((await stack.http('POST', `/sessions/${id}/message`, { text: 'hello' })).status).toBe(410)
})

test('nothing of all this is left', async () => {
  expect(stack.sandboxProcesses()).toEqual([])
  const left = await stack.sql("select name, state from sandbox where state <> 'gone'")
  expect(left).toEqual([])
})
