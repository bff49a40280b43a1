import { expect, test } from '@jest/globals'
import { replyTo } from '../faults/model.ts'
import type { Stack } from '../faults/stack.ts'
import { until } from '../until.ts'
import { streaming } from '../faults/turns.ts'
import { withStack } from '../faults/with-stack.ts'
import {
  createAgent, eventsOf, expectWholeLog, getSession, leavesNothing, openSession, reaches, sandboxesOf, say, textOf, turnsOf, workflowStatus,
} from '../faults/world.ts' // prettier-ignore
import { detailsOf, wakeSession, withTemporal } from '../pool/world.ts'

/** Every way in which a session ends. Waits that are set in minutes are made shorter in the session's row. */
let stack: Stack
let agent: string
withStack({ pool: 2 }, async (started) => {
  stack = started
  agent = await createAgent(stack)
})

const newSession = (): ReturnType<typeof openSession> => openSession(stack, agent, { wait: true })

/** What every end leaves: a whole and closed log, an ended workflow, no sandbox. */
const endedCleanly = async (sessionId: string): Promise<void> => {
  await until(`workflow of ${sessionId} has ended`, 30_000, async () => {
    return (await workflowStatus(stack, `session/${sessionId}`)) === 'COMPLETED'
  })
  const sandboxes = await sandboxesOf(stack, sessionId)
  await leavesNothing(
    stack,
    sandboxes.map(({ name }) => name),
  )
  const log = await expectWholeLog(stack, sessionId)
  expect(log.at(-1)?.type).toBe('session.ended')
  expect(log.filter(({ type }) => type === 'session.ended').length).toBe(1)
  const message = await say(stack, sessionId, 'm-late')
  expect({ status: message.status, code: message.body.code }).toEqual({ status: 410, code: 'gone' })
}

test('an idle session ends when its time is over, counted from the last thing that happened', async () => {
  const session = await newSession()
  await stack.sql('update session set idle_timeout_ms = 2000 where id = $1', [session.id])
  expect(textOf((await say(stack, session.id, 'm-idle words=2')).body)).toBe(replyTo('m-idle words=2'))
  await reaches(stack, session.id, 'dead', 20_000)
  expect(await getSession(stack, session.id)).toMatchObject({ end_reason: 'idle_timeout' })
  const [times] = await stack.sql<{ idle_ms: string }>(
    `select extract(epoch from s.ended_at - t.finished_at) * 1000 idle_ms from session s join turn t on t.session_id = s.id where s.id = $1`,
    [session.id],
  )
  expect(Number(times?.idle_ms)).toBeGreaterThanOrEqual(2_000)
  await endedCleanly(session.id)
}, 60_000)

test('a session with a running turn is not idle, however long the turn takes', async () => {
  const session = await newSession()
  await stack.sql('update session set idle_timeout_ms = 1000 where id = $1', [session.id])
  const text = 'm-long words=30 gap=100'
  const { status, body } = await say(stack, session.id, text)
  expect({ status, text: textOf(body) }).toEqual({ status: 200, text: replyTo(text) })
  await reaches(stack, session.id, 'dead', 20_000)
  expect(await getSession(stack, session.id)).toMatchObject({ end_reason: 'idle_timeout' })
}, 60_000)

test('messages run one at a time, in order, also those that came while another ran', async () => {
  const session = await newSession()
  const texts = ['m-first words=20 gap=50', 'm-second words=3', 'm-third words=2']
  const replies: ReturnType<typeof say>[] = []
  for (const [i, text] of texts.entries()) {
    replies.push(say(stack, session.id, text))
    await until(`${text} is stored`, 10_000, async () => (await turnsOf(stack, session.id)).length === i + 1)
  }
  expect((await Promise.all(replies)).map(({ body }) => textOf(body))).toEqual(texts.map(replyTo))
  const log = await expectWholeLog(stack, session.id)
  const [first, second, third] = await turnsOf(stack, session.id)
  expect(
    log.flatMap(({ type, data }) =>
      type === 'turn.started' || type === 'turn.finished' ? [[type, data.turn_id]] : [],
    ),
  ).toEqual(
    [first, second, third].flatMap((turn) => [
      ['turn.started', turn?.id],
      ['turn.finished', turn?.id],
    ]),
  )
  await stack.http('DELETE', `/sessions/${session.id}`)
})

test('reading a session does not keep it alive', async () => {
  const session = await newSession()
  await stack.sql('update session set idle_timeout_ms = 2000 where id = $1', [session.id])
  await wakeSession(stack, session.id)
  await until('it has ended', 20_000, async () => {
    await Promise.all(
      ['', '/messages', '/diagnose', '/log'].map((route) => stack.http('GET', `/sessions/${session.id}${route}`)),
    )
    return (await getSession(stack, session.id)).status === 'dead'
  })
  expect(await getSession(stack, session.id)).toMatchObject({ end_reason: 'idle_timeout' })
}, 60_000)

test('a session ends at its maximum age, also while a turn runs', async () => {
  const session = await newSession()
  await stack.sql("update session set max_age_at = now() + interval '3 seconds' where id = $1", [session.id])
  await wakeSession(stack, session.id)
  const reply = say(stack, session.id, 'm-aged words=400 gap=100')
  await streaming(stack, 'm-aged')
  await reaches(stack, session.id, 'dead', 20_000)
  expect(await getSession(stack, session.id)).toMatchObject({ end_reason: 'max_lifetime' })
  const { status, body } = await reply
  expect({ status, code: body.code }).toEqual({ status: 410, code: 'gone' })
  expect(await turnsOf(stack, session.id)).toMatchObject([{ status: 'cancelled', error: { code: 'session_ended' } }])
  await endedCleanly(session.id)
  await until('the model is not asked any more', 10_000, () => stack.model.askedFor('m-aged')[0]?.outcome === 'cut')
}, 60_000)

test('a session deleted during a turn ends at once, and so does the turn', async () => {
  const session = await newSession()
  const reply = say(stack, session.id, 'm-deleted words=400 gap=100')
  await streaming(stack, 'm-deleted')
  const waiting = say(stack, session.id, 'm-behind words=2')
  await until('both are there', 10_000, async () => (await turnsOf(stack, session.id)).length === 2)
  expect((await stack.http('DELETE', `/sessions/${session.id}`)).body).toMatchObject({ status: 'deleted' })
  expect(await getSession(stack, session.id)).toMatchObject({ status: 'dead', end_reason: 'deleted' })
  expect([(await reply).status, (await waiting).status]).toEqual([410, 410])
  expect((await turnsOf(stack, session.id)).map(({ status }) => status)).toEqual(['cancelled', 'cancelled'])
  await endedCleanly(session.id)
  expect(stack.model.askedFor('m-behind')).toEqual([])
  expect((await stack.http('DELETE', `/sessions/${session.id}`)).body).toMatchObject({ status: 'dead' })
}, 60_000)

test('a session deleted while it moves to another sandbox leaves neither', async () => {
  const slow = await createAgent(stack)
  const session = await openSession(stack, slow, { wait: true })
  // From now on there is no warm one of its template, and a new one takes a while.
  expect((await stack.http('PATCH', `/agents/${slow}`, { setup_cmd: 'sleep 5' })).status).toBe(200)
  expect((await stack.http('POST', `/sessions/${session.id}/restart`)).status).toBe(200)
  await until('its second sandbox is being made', 20_000, async () => {
    const sandboxes = await sandboxesOf(stack, session.id)
    return sandboxes.length === 2 && sandboxes[1]?.state === 'provisioning'
  })
  expect((await stack.http('DELETE', `/sessions/${session.id}`)).status).toBe(200)
  expect(await getSession(stack, session.id)).toMatchObject({ status: 'dead', end_reason: 'deleted', attempt: 2 })
  await endedCleanly(session.id)
  expect((await eventsOf(stack, session.id)).map(({ type }) => type)).not.toContain('sandbox_moved')
  await stack.http('DELETE', `/agents/${slow}`)
}, 90_000)

test('the sessions of a deleted agent end with it', async () => {
  const doomed = await createAgent(stack)
  const [one, two] = [await openSession(stack, doomed, { wait: true }), await openSession(stack, doomed)]
  expect((await stack.http('DELETE', `/agents/${doomed}`)).status).toBe(204)
  for (const { id } of [one, two]) {
    expect(await getSession(stack, id)).toMatchObject({ status: 'dead', end_reason: 'agent_deleted' })
    await endedCleanly(id)
  }
}, 60_000)

test('cancelling the workflow ends the session like a delete', async () => {
  const session = await newSession()
  const reply = say(stack, session.id, 'm-cancelled words=400 gap=100')
  await streaming(stack, 'm-cancelled')
  await withTemporal(stack, (client) => client.workflow.getHandle(`session/${session.id}`).cancel())
  await reaches(stack, session.id, 'dead', 20_000)
  expect(await getSession(stack, session.id)).toMatchObject({ end_reason: 'deleted' })
  expect((await reply).status).toBe(410)
  await endedCleanly(session.id)
}, 60_000)

test('a terminated workflow is started anew by the janitor, and the session goes on, its turn too', async () => {
  const session = await newSession()
  const text = 'm-terminated words=60 gap=100'
  const reply = say(stack, session.id, text)
  await streaming(stack, 'm-terminated')
  await withTemporal(stack, (client) => client.workflow.getHandle(`session/${session.id}`).terminate('by hand'))
  // The janitor leaves alone what has just begun.
  await stack.sql("update session set created_at = created_at - interval '2 minutes' where id = $1", [session.id])
  await until('its workflow runs again', 30_000, async () => {
    await withTemporal(stack, (client) => client.schedule.getHandle('janitor').trigger())
    return (await workflowStatus(stack, `session/${session.id}`)) === 'RUNNING'
  })
  const { status, body } = await reply
  expect({ status, text: textOf(body) }).toEqual({ status: 200, text: replyTo(text) })
  expect(stack.model.askedFor('m-terminated').length).toBe(1)
  expect(textOf((await say(stack, session.id, 'm-onward words=2')).body)).toBe(replyTo('m-onward words=2'))
  await expectWholeLog(stack, session.id)
  expect(await getSession(stack, session.id)).toMatchObject({ status: 'ready', attempt: 1 })
  await stack.http('DELETE', `/sessions/${session.id}`)
  await endedCleanly(session.id)
}, 90_000)

test('a session is found in Temporal by its agent and status, and its page says what it waits for', async () => {
  const session = await newSession()
  await until('visibility knows it as ready', 20_000, () =>
    withTemporal(stack, async (client) => {
      const query = `WorkflowType = 'session' AND LapAgentId = '${agent}' AND LapStatus = 'ready'`
      for await (const { workflowId } of client.workflow.list({ query }))
        if (workflowId === `session/${session.id}`) return true
      return false
    }),
  )
  const page = await detailsOf(stack, `session/${session.id}`)
  expect(page).toContain('| Status | ready |')
  expect(page).toContain('| Waiting for | a message |')
  expect(page).toMatch(/\| Sandbox \| `lap-[0-9a-f-]+` \(claimed, attempt 1\) \|/)
  await stack.http('DELETE', `/sessions/${session.id}`)
})
