import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { type TerminalClient, openTerminal } from '../terminal/client.ts'
import { type Stack, startStack } from './stack.ts'
import { until } from '../until.ts'
import { createAgent, getSession, openSession, reaches, supervisorPid } from './world.ts'

const harnesses = ['../../bench/harness', '../terminal/harness'].map((each) =>
  path.resolve(fileURLToPath(new URL('.', import.meta.url)), each),
)

let stack: Stack
let agent: string
beforeAll(async () => {
  stack = await startStack({ env: { WARM_POOL_SIZE: '0', HARNESS_PATH: harnesses.join(':') }, apis: 2 })
  agent = await createAgent(stack, { harness_id: 'shell' })
}, 180_000)
afterAll(async () => stack?.[Symbol.asyncDispose](), 60_000)

/** As a client does that has lost its terminal: with a new ticket each time, until one is taken. */
const open = (id: string, api: number): Promise<TerminalClient> =>
  until('a terminal', 60_000, async () => {
    const { status, body } = await stack.http<{ url: string }>('POST', `/sessions/${id}/tty-ticket`, undefined, { api })
    return status === 200 && openTerminal(`${stack.api(api).url.replace('http', 'ws')}${body.url}`)
  })

/** Has the workflow look at its deadlines. */
const wake = (id: string): Promise<unknown> =>
  stack.sql(
    "insert into outbox (kind, subject, created_at, attempts, next_at) values ('signal_session', $1, now(), 0, now())",
    [id],
  )

test('an API that is killed takes nothing of the screen along: at another one it is as it was', async () => {
  const { id } = await openSession(stack, agent, { wait: true })
  const first = await open(id, 0)
  first.type('printf "\\033[35mstill here\\033[0m\\n"\r')
  const whole = /^still here\n\$ $/m
  await first.until(whole)
  const [seen, cursor] = [first.screen(), first.cursor()]
  await stack.api(0).kill('SIGKILL')
  expect((await first.closed).code).toBe(1006)
  await using second = await open(id, 1)
  await second.until(whole)
  expect(second.screen()).toEqual(seen)
  expect(second.cursor()).toEqual(cursor)
  await stack.api(0).start()
  await using third = await open(id, 0)
  second.type('echo for both\r')
  await third.until(/^for both$/m)
}, 180_000)

test('a sandbox that is killed closes the terminal; the session moves, and the new screen says so', async () => {
  const before = await openSession(stack, agent, { wait: true })
  const first = await open(before.id, 0)
  await first.until(/\$ $/)
  process.kill(supervisorPid(stack, before.task_arn!), 'SIGKILL')
  expect((await first.closed).code).toBe(1012)
  await using second = await open(before.id, 1)
  await second.until(/sandbox of this session was lost/)
  second.type('\r')
  await second.until(/\$ $/)
  second.type('echo "on in $PWD"\r')
  await second.until(/^on in /m)
  const after = await getSession(stack, before.id)
  expect(after).toMatchObject({ status: 'ready', attempt: 2 })
  expect(after.task_arn).not.toBe(before.task_arn)
}, 180_000)

test('a session is not idle while its program waits for a model, though nobody types; afterwards it is', async () => {
  const { id } = await openSession(stack, agent, { wait: true })
  await using terminal = await open(id, 0)
  const body = { model: 'lap', stream: true, messages: [{ role: 'user', content: 'm-works words=1000000 gap=100' }] }
  const request = `curl -sN $MODELS/chat/completions -H "authorization: Bearer $MODELS_KEY" -d '${JSON.stringify(body)}'`
  terminal.type(`${request} > said; echo o""ver\r`)
  const asked = await until('the model is asked', 30_000, () => stack.model.askedFor('m-works')[0])
  await stack.sql('update session set idle_timeout_ms = 1000 where id = $1', [id])
  await wake(id)
  const { sent } = asked
  await until('it has worked for longer than that', 60_000, () => asked.sent > sent + 50)
  expect(await getSession(stack, id)).toMatchObject({ status: 'ready' })
  asked.enough = true
  await reaches(stack, id, 'dead')
  expect(await getSession(stack, id)).toMatchObject({ end_reason: 'idle_timeout' })
}, 180_000)
