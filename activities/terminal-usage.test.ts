import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, beforeEach, expect, jest, test } from '@jest/globals'
import { addUsageOutsideTurns, terminalSandboxes } from '../db/terminal-usage.ts'
import { getSandbox } from '../db/sandboxes.ts'
import { openStream } from '../test/event-stream.ts'
import { type Failure, type TestApi, startTestApi } from '../test/api.ts'
import { type TerminalSession, buildTerminalSession } from '../test/terminal/session.ts'
import { noteLastUsage, noteUsage } from './terminal-usage.ts'

jest.setTimeout(60_000)

let gateway: http.Server
let asked = 0
let api: TestApi
let session: TerminalSession

beforeAll(async () => {
  gateway = http.createServer((request, response) => {
    asked++
    request.resume()
    response.writeHead(200, { 'content-type': 'application/json', 'x-litellm-response-cost': '0.4' })
    response.end('{"usage":{"prompt_tokens":100,"completion_tokens":20}}')
  })
  gateway.listen(0, '127.0.0.1')
  await once(gateway, 'listening')
  api = await startTestApi({
    env: { LITELLM_API_BASE: `http://127.0.0.1:${(gateway.address() as AddressInfo).port}` },
  })
})
beforeEach(async () => {
  asked = 0
  session = await buildTerminalSession(api)
})
afterAll(async () => {
  await api?.[Symbol.asyncDispose]()
  gateway?.close()
})

type Shown = { usage: Record<string, number | null>; limit_reached: string | null }
const shown = async (): Promise<Shown> => (await api.call<Shown>('GET', `/sessions/${session.id}`)).body
const limit = (body: object) => api.call<Failure>('PATCH', `/sessions/${session.id}`, { body })
/** The program in the terminal asks a model. @returns what it is answered */
const askModel = async (): Promise<string> => {
  await using terminal = await session.open()
  const done = `done-${crypto.randomUUID()}`
  const body = JSON.stringify({ model: 'lap', messages: [] })
  const mark = `${done.slice(0, 9)}""${done.slice(9)}`
  terminal.type(
    `clear; curl -s $MODELS/chat/completions -H "authorization: Bearer $MODELS_KEY" -d '${body}'; echo ${mark}\r`,
  )
  return await terminal.until(new RegExp(done))
}
const look = async (): Promise<boolean> => noteUsage(api.deps, (await getSandbox(api.deps.sql, session.sandbox.id))!)

test('what the program of a terminal uses is added to its session, once however often one looks', async () => {
  await askModel()
  await askModel()
  const [mine] = (await terminalSandboxes(api.deps.sql)).filter(({ session_id }) => session_id === session.id)
  expect(mine?.id).toBe(session.sandbox.id)
  await Promise.all([look(), look(), look()])
  const twice = { turns: 0, input_tokens: 200, output_tokens: 40, cached_tokens: 0, requests: 2, cost_usd: 0.8 }
  expect((await shown()).usage).toEqual(twice)
  await look()
  expect((await shown()).usage).toEqual(twice)
  await askModel()
  await look()
  expect((await shown()).usage).toMatchObject({ input_tokens: 300, requests: 3, cost_usd: 1.2 })
})

test('each sandbox of a session counts from 0, and what an earlier one says late is added too', async () => {
  const { sql } = api.deps
  const sum = { input_tokens: 10, output_tokens: 5, cached_tokens: 0, cost_usd: null, requests: 1 }
  const first = { id: session.sandbox.id, session_id: session.id }
  await addUsageOutsideTurns(sql, first, sum)
  const second = await api.warmSandbox(session.agentId)
  await addUsageOutsideTurns(sql, { id: second.id, session_id: session.id }, sum)
  await addUsageOutsideTurns(sql, first, { ...sum, input_tokens: 30, requests: 3 })
  expect((await shown()).usage).toMatchObject({ input_tokens: 40, output_tokens: 10, requests: 4, cost_usd: null })
})

test('at max_cost_usd the session says so once, and no call of a model passes until the limit is raised', async () => {
  await limit({ max_cost_usd: 0.5 })
  await askModel()
  await look()
  expect((await shown()).limit_reached).toBeNull()
  await askModel()
  await look()
  await look()
  expect(await shown()).toMatchObject({ limit_reached: 'max_cost_usd', usage: { cost_usd: 0.8 } })
  expect(await askModel()).toContain('The session has used 0.8 of its 0.5 US dollars (max_cost_usd).')
  expect(asked).toBe(2)
  const stream = await openStream(api.urlOf(`/sessions/${session.id}/events?follow=1&after=0`))
  const types: string[] = []
  await limit({ max_cost_usd: 5 })
  await stream.until(({ data }) => {
    const event = data['event'] as { type: string; data: { limit_reached?: unknown } } | undefined
    if (event !== undefined) types.push(event.type)
    return event?.type === 'session.updated' && types.filter((type) => type === 'session.updated').length === 2
  })
  stream.close()
  expect(types.filter((type) => type === 'session.limit_reached')).toHaveLength(1)
  await look()
  await askModel()
  expect(asked).toBe(3)
})

test('what was used last is added when the sandbox is about to be removed, also of a session that has ended', async () => {
  await askModel()
  await api.call('DELETE', `/sessions/${session.id}`)
  const sandbox = (await getSandbox(api.deps.sql, session.sandbox.id))!
  expect(sandbox.state).toBe('ending')
  await noteLastUsage(api.deps, sandbox)
  expect((await shown()).usage).toMatchObject({ requests: 1, cost_usd: 0.4 })
})

test('a sandbox that does not answer is left for the next look', async () => {
  await askModel()
  expect(await noteUsage(api.deps, { ...session.sandbox, endpoint: 'http://127.0.0.1:9' })).toBe(false)
  expect((await shown()).usage).toMatchObject({ requests: 0 })
})

test('max_turns of a terminal is 422 wherever it is given: it has no turns', async () => {
  const create = (body: object) =>
    api.call<Failure & { id: string }>('POST', '/agents', { body: { model: 'm', ...body } })
  const light = (await create({ harness_id: 'light', max_turns: 3 })).body.id
  const answers = [
    await create({ harness_id: 'shell', max_turns: 3 }),
    await api.call<Failure>('PATCH', `/agents/${session.agentId}`, { body: { max_turns: 3 } }),
    await api.call<Failure>('PATCH', `/agents/${light}`, { body: { harness_id: 'shell' } }),
    await api.call<Failure>('POST', `/agents/${session.agentId}/session`, { body: { max_turns: 3 } }),
    await limit({ max_turns: 3 }),
  ]
  for (const { status, body } of answers)
    expect({ status, ...body.details?.[0] }).toEqual({
      status: 422,
      path: 'max_turns',
      message: 'the harness shell is a terminal, which has no turns: give null, and max_cost_usd to limit it',
    })
  const changed = await api.call('PATCH', `/agents/${light}`, { body: { harness_id: 'shell', max_turns: null } })
  expect(changed.status).toBe(200)
  expect((await limit({ max_turns: null, max_cost_usd: 1 })).status).toBe(200)
})
