import { expect, test } from '@jest/globals'
import { startReceiver, status, verified } from '../receiver.ts'
import type { Receiver } from '../receiver.ts'
import { startProxy } from './proxy.ts'
import type { Stack } from './stack.ts'
import { until } from '../until.ts'
import { withStack } from './with-stack.ts'
import {
  activityAttempts,
  createAgent,
  openSession,
  pauseJanitor,
  sweep,
  terminateWorkflow,
  workflowRests,
  workflowStatus,
} from './world.ts'

/** Something happens, and whoever is to tell a webhook of it dies. */

let stack: Stack
let agent: string
withStack({ apis: 2, env: { WEBHOOK_ALLOW_PRIVATE_TARGETS: 'true' } }, async (started) => {
  stack = started
  agent = await createAgent(stack)
})

type Delivery = {
  id: string
  status: string
  type: string
  attempt_count: number
  attempts: { status_code: number | null; result: string }[]
}
type Hook = { id: string; secret: string; receiver: Receiver }

const PATIENCE_MS = 60_000

/** A webhook for the ends of sessions, and its receiver. */
const listen = async (receiver: Receiver, url = receiver.url): Promise<Hook> => {
  const { status: code, body } = await stack.http<{ id: string; secret: string }>('POST', '/webhooks', {
    url,
    events: ['session.ended'],
  })
  expect(code).toBe(200)
  return { ...body, receiver }
}

const deliveriesOf = async ({ id }: Hook, api = 0): Promise<Delivery[]> =>
  (await stack.http<Delivery[]>('GET', `/webhooks/${id}/deliveries`, undefined, { api })).body

/** A session ends. @returns its id */
const happen = async (api = 0): Promise<string> => {
  const { id } = await openSession(stack, agent, { api })
  expect((await stack.http('DELETE', `/sessions/${id}`, undefined, { api })).status).toBe(200)
  return id
}

/** Each session is told in one delivery, which verifies, and whose tries all had its id. */
const expectTold = async (hook: Hook, sessions: string[]): Promise<Delivery[]> => {
  await until('all is delivered', PATIENCE_MS, async () => {
    const all = await deliveriesOf(hook)
    return all.length === sessions.length && all.every((one) => one.status === 'delivered')
  })
  const deliveries = await deliveriesOf(hook)
  const told = new Map(
    hook.receiver.received.map((request) => [request.headers['webhook-id'], verified(request, hook.secret)]),
  )
  expect(new Set(told.keys())).toEqual(new Set(deliveries.map(({ id }) => id)))
  expect(new Set([...told.values()].map(({ data }) => data['session_id']))).toEqual(new Set(sessions))
  return deliveries
}

const asked = ({ receiver }: Hook, times: number) =>
  until(`the receiver was asked ${times} times`, PATIENCE_MS, () => receiver.received.length >= times)

test('the worker is killed during a try: another one tries again, under the same id', async () => {
  await using receiver = await startReceiver()
  const hook = await listen(receiver)
  receiver.answer((response, _, n) => {
    if (n > 1) response.writeHead(204).end()
  })
  const session = await happen()
  await asked(hook, 1)
  await stack.worker().kill('SIGKILL')
  await stack.worker().start()
  const [delivery] = await expectTold(hook, [session])
  expect(receiver.received.length).toBe(2)
  // Of the first try nobody could write down anything.
  expect(delivery?.attempts).toMatchObject([{ result: 'success' }])
})

test('the worker is told to end during a try: that is no failure of the receiver', async () => {
  await using receiver = await startReceiver()
  const hook = await listen(receiver)
  receiver.answer((response, _, n) => {
    if (n > 1) response.writeHead(204).end()
  })
  const session = await happen()
  await asked(hook, 1)
  await stack.worker().kill('SIGTERM')
  await stack.worker().start()
  const [delivery] = await expectTold(hook, [session])
  expect(delivery?.attempts.at(-1)).toMatchObject({ result: 'success' })
  expect(delivery?.attempts.map(({ result }) => result)).not.toContain('connection')
})

test('the API is killed as soon as it has ended a session, while no worker runs: nothing is lost', async () => {
  await using receiver = await startReceiver()
  const hook = await listen(receiver)
  await stack.worker().kill('SIGKILL')
  stack.apiTemporal.hold()
  const sessions = [await happen(1), await happen(1)]
  await Promise.all([stack.api(1).kill('SIGKILL'), stack.api(0).kill('SIGKILL')])
  expect(receiver.received).toEqual([])
  stack.apiTemporal.release()
  await stack.worker().start()
  await Promise.all([stack.api(0).start(), stack.api(1).start()])
  await expectTold(hook, sessions)
}, 300_000)

test('Temporal is stopped: sessions end, and their webhooks hear of it when it is back', async () => {
  await using receiver = await startReceiver()
  const hook = await listen(receiver)
  receiver.answer(status(503))
  const waiting = await happen()
  await asked(hook, 1)
  await until('the try is written down', PATIENCE_MS, async () => (await deliveriesOf(hook))[0]?.attempt_count === 1)
  await stack.temporal.stop()
  const session = await happen()
  receiver.answer(status(204))
  await stack.temporal.start()
  await expectTold(hook, [waiting, session])
})

test('Postgres is killed between a try and its note: it is tried again, under the same id', async () => {
  await using receiver = await startReceiver()
  await using proxy = await startProxy(Number(new URL(receiver.url).port))
  const hook = await listen(receiver, `http://127.0.0.1:${proxy.port}`)
  // The receiver has taken it, and its answer does not arrive before the database is gone.
  receiver.answer((response) => {
    proxy.hold()
    response.writeHead(204).end()
  })
  const session = await happen()
  await asked(hook, 1)
  await stack.postgres.kill()
  receiver.answer(status(204))
  proxy.release()
  const workflowId = `webhook/${String(receiver.received[0]?.headers['webhook-id'])}`
  await until('it cannot be noted', PATIENCE_MS, async () => (await activityAttempts(stack, workflowId)) > 1)
  await stack.postgres.start()
  const [delivery] = await expectTold(hook, [session])
  expect(delivery?.attempts).toMatchObject([{ result: 'success' }])
  expect(receiver.received.length).toBe(2)
})

test('everything is killed while a delivery waits for its next try', async () => {
  await using receiver = await startReceiver()
  const hook = await listen(receiver)
  receiver.answer(status(503, { 'retry-after': '20' }))
  const session = await happen()
  await until('a try is written down', PATIENCE_MS, async () => (await deliveriesOf(hook))[0]?.attempt_count === 1)
  await Promise.all([
    stack.worker().kill('SIGKILL'),
    stack.api(0).kill('SIGKILL'),
    stack.api(1).kill('SIGKILL'),
    stack.postgres.kill(),
    stack.temporal.stop(),
  ])
  receiver.answer(status(204))
  await Promise.all([stack.postgres.start(), stack.temporal.start()])
  await Promise.all([stack.worker().start(), stack.api(0).start(), stack.api(1).start()])
  const [delivery] = await expectTold(hook, [session])
  expect(delivery?.attempts.map(({ status_code }) => status_code)).toEqual([503, 204])
}, 300_000)

test('a workflow that was terminated is begun anew by the janitor, where it was', async () => {
  await using receiver = await startReceiver()
  const hook = await listen(receiver)
  await pauseJanitor(stack)
  receiver.answer(status(503, { 'retry-after': '3600' }))
  const session = await happen()
  const told = await until('a try is written down', PATIENCE_MS, async () => {
    const [one] = await deliveriesOf(hook)
    return one?.attempt_count === 1 ? one : null
  })
  const workflowId = `webhook/${told.id}`
  await until('its workflow waits', PATIENCE_MS, () => workflowRests(stack, workflowId))
  await terminateWorkflow(stack, workflowId)
  receiver.answer(status(204))
  // Its time comes, and nobody is there.
  await stack.sql("update webhook_delivery set next_attempt_at = now() - interval '2 minutes' where id = $1", [told.id])
  expect(await sweep(stack)).toMatchObject({ deliveries_started: 1 })
  const [delivery] = await expectTold(hook, [session])
  expect(delivery?.attempts.map(({ status_code }) => status_code)).toEqual([503, 204])
  await until(
    'its workflow has ended',
    PATIENCE_MS,
    async () => (await workflowStatus(stack, workflowId)) === 'COMPLETED',
  )
})

test('receivers that are slow, hang up, redirect and never stop talking hold up no other one', async () => {
  await using bad = await startReceiver()
  await using good = await startReceiver()
  const manners = ['slow', 'hangs up', 'redirects', 'floods']
  bad.answer((response, { path }) => {
    if (path === '/hangs%20up') response.destroy()
    else if (path === '/redirects') response.writeHead(307, { location: good.url }).end()
    else if (path === '/floods') {
      response.writeHead(500)
      const more = (): void => {
        while (!response.destroyed && response.write('x'.repeat(65_536)));
      }
      response.on('drain', more)
      more()
    }
  })
  const hooks = new Map<string, Hook>()
  for (const manner of manners) hooks.set(manner, await listen(bad, `${bad.url}/${encodeURIComponent(manner)}`))
  const hook = await listen(good)
  const session = await happen()
  await expectTold(hook, [session])
  const tried = async (manner: string): Promise<Delivery | null> => {
    const [one] = await deliveriesOf(hooks.get(manner)!)
    return one !== undefined && one.attempt_count > 0 ? one : null
  }
  const first = async (manner: string) =>
    (await until(`${manner} was tried`, PATIENCE_MS, () => tried(manner))).attempts[0]
  expect(await first('hangs up')).toMatchObject({ result: 'connection', status_code: null })
  expect(await first('redirects')).toMatchObject({ result: 'status', status_code: 307 })
  expect(await first('floods')).toMatchObject({ result: 'status', status_code: 500 })
  expect(await first('slow')).toMatchObject({ result: 'timeout', status_code: null })
  expect(good.received.length).toBe(1)
  for (const { id } of hooks.values()) await stack.http('DELETE', `/webhooks/${id}`)
})
