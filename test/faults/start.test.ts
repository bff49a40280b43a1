import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { beforeAll, describe, expect, test } from '@jest/globals'
import type { Stack } from './stack.ts'
import { until } from '../until.ts'
import { withStack } from './with-stack.ts'
import {
  createAgent, getSession, leavesNothing, openSession, poolHas, reaches, sandboxesOf, type SandboxRow, say, supervisorPid, textOf, warmPool, workflowStatus,
} from './world.ts' // prettier-ignore
import { replyTo } from './model.ts'

/** All that anybody had to tell Temporal is told, and the session's workflow is over, or was never needed. */
const workflowHasEnded = (sessionId: string): Promise<true> =>
  until('its workflow has ended', 40_000, async () => {
    const untold = await stack.sql('select 1 from outbox where subject = $1', [sessionId])
    return untold.length === 0 && (await workflowStatus(stack, `session/${sessionId}`)) !== 'RUNNING'
  })

let stack: Stack
withStack({}, (started) => {
  stack = started
})

describe('without a pool', () => {
  let agent: string
  beforeAll(async () => {
    agent = await createAgent(stack, { setup_cmd: 'sleep 0.3' })
  })

  const stateIs = async (name: string, accepted: string[]): Promise<boolean> => {
    const text = await readFile(path.join(stack.sandboxDir, name, 'state.json'), 'utf8')
    const { state, phase }: { state: string; phase: string | null } = JSON.parse(text)
    return accepted.includes(state) || accepted.includes(phase ?? '')
  }

  const moments: [string, (sandbox: () => Promise<SandboxRow | undefined>) => Promise<unknown>][] = [
    ['at once', () => Promise.resolve()],
    ['when its sandbox has a row', (sandbox) => until('a row', 30_000, sandbox)],
    [
      'when its sandbox has a directory',
      (sandbox) =>
        until('a directory', 30_000, async () =>
          existsSync(path.join(stack.sandboxDir, (await sandbox())?.name ?? '-')),
        ),
    ],
    [
      'while its repository is cloned or prepared',
      (sandbox) =>
        until('a phase', 30_000, async () =>
          stateIs((await sandbox())?.name ?? '-', [
            'cloning_repo',
            'installing_deps',
            'harness_listening',
            'waiting_harness',
            'booted',
            'bound',
          ]),
        ),
    ],
    [
      'when its sandbox has just booted',
      (sandbox) => until('booted', 30_000, async () => stateIs((await sandbox())?.name ?? '-', ['booted', 'bound'])),
    ],
    [
      'right after it became ready',
      (sandbox) => until('ready', 30_000, async () => (await sandbox())?.state === 'claimed'),
    ],
  ]

  test.each(moments)(
    'a session deleted %s leaves nothing',
    async (_, moment) => {
      const session = await openSession(stack, agent)
      expect(session).toMatchObject({ status: 'creating', spawn_mode: 'cold' })
      await moment(async () => (await sandboxesOf(stack, session.id)).at(-1))
      expect((await stack.http('DELETE', `/sessions/${session.id}`)).status).toBe(200)
      expect(await getSession(stack, session.id)).toMatchObject({ status: 'dead', end_reason: 'deleted' })
      await workflowHasEnded(session.id)
      const sandboxes = await sandboxesOf(stack, session.id)
      await leavesNothing(
        stack,
        sandboxes.map(({ name }) => name),
      )
      expect(stack.sandboxProcesses()).toEqual([])
      expect(await getSession(stack, session.id)).toMatchObject({ status: 'dead', end_reason: 'deleted' })
    },
    90_000,
  )
})

describe('with a pool of one', () => {
  let agent: string
  beforeAll(async () => {
    for (const part of [stack.api(), stack.worker()]) {
      await part.kill('SIGTERM')
      await part.start({ WARM_POOL_SIZE: '1', WARM_POOL_MAX_PROVISIONING: '1' })
    }
    agent = await createAgent(stack)
    await warmPool(stack, agent, 1)
  })

  const warmOne = async (): Promise<SandboxRow> => {
    await poolHas(stack, 1)
    const [sandbox] = await stack.sql<SandboxRow>("select * from sandbox where state = 'warm'")
    if (sandbox === undefined) throw new Error('no warm sandbox')
    return sandbox
  }

  /** Begins a create whose sandbox does not answer, and resolves when its transaction is committed. */
  const createThatHangs = async (): Promise<{
    reply: Promise<unknown>
    sandbox: SandboxRow
    sessionId: string
    thaw: () => void
  }> => {
    const sandbox = await warmOne()
    const pid = supervisorPid(stack, sandbox.name)
    process.kill(pid, 'SIGSTOP')
    const reply = stack.http('POST', `/agents/${agent}/session`, {}).catch((error: unknown) => error)
    const sessionId = await until('the session is committed', 10_000, async () => {
      const [row] = await stack.sql<SandboxRow>('select * from sandbox where id = $1', [sandbox.id])
      return row?.session_id
    })
    return { reply, sandbox, sessionId, thaw: () => process.kill(pid, 'SIGCONT') }
  }

  test('a session whose API is killed right after the commit becomes ready, in the sandbox it had', async () => {
    // What the API would tell Temporal stays in the outbox.
    stack.apiTemporal.hold()
    const { reply, sandbox, sessionId, thaw } = await createThatHangs()
    await stack.api().kill('SIGKILL')
    thaw()
    expect(Error.isError(await reply)).toBe(true)
    await until('the worker relays the outbox and makes the session ready', 30_000, async () => {
      const [row] = await stack.sql<{ status: string }>('select status from session where id = $1', [sessionId])
      return row?.status === 'ready'
    })
    expect(await sandboxesOf(stack, sessionId)).toMatchObject([{ id: sandbox.id, state: 'claimed' }])
    expect(await workflowStatus(stack, `session/${sessionId}`)).toBe('RUNNING')
    // What the killed API had taken to send comes up again when its lease has run out.
    await until('the outbox is empty', 20_000, async () => (await stack.sql('select 1 from outbox')).length === 0)
    stack.apiTemporal.release()
    await stack.api().start()
    expect(await getSession(stack, sessionId)).toMatchObject({ status: 'ready', spawn_mode: 'warm', attempt: 1 })
    const { body } = await say(stack, sessionId, 'm-after words=3')
    expect(textOf(body)).toBe(replyTo('m-after words=3'))
  })

  test('a session deleted while it is bound to a warm sandbox leaves nothing', async () => {
    const { reply, sandbox, sessionId, thaw } = await createThatHangs()
    const deleted = await stack.http('DELETE', `/sessions/${sessionId}`)
    thaw()
    expect(deleted.status).toBe(200)
    await reply
    await reaches(stack, sessionId, 'dead')
    await leavesNothing(stack, [sandbox.name])
    await workflowHasEnded(sessionId)
    expect(await getSession(stack, sessionId)).toMatchObject({ status: 'dead', end_reason: 'deleted' })
  })
})
