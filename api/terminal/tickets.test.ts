import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { expect, jest, test } from '@jest/globals'
import { startServer } from '../server.ts'
import { wantsTerminal } from './admission.ts'
import { serveTerminals } from './server.ts'
import { type Failure, type TestApi, TEST_MASTER_KEY } from '../../test/api.ts'
import { Refused, openTerminal } from '../../test/terminal/client.ts'
import { type TerminalSession, buildTerminalSession, webSocketUrl, withTerminal } from '../../test/terminal/session.ts'
import { until } from '../../test/until.ts'

jest.setTimeout(60_000)

let api: TestApi
let session: TerminalSession
withTerminal((world) => void ({ api, session } = world))

const open = (path: string, headers: Record<string, string> = {}, url = api.url) =>
  openTerminal(webSocketUrl(url, path), { headers })

/** What is answered, byte by byte, to an upgrade that is written by hand; without what is in every answer and never the same. */
const raw = async (path: string): Promise<string> => {
  const { hostname, port } = new URL(api.url)
  const socket = connect(Number(port), hostname)
  socket.write(
    `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${Buffer.alloc(16, 7).toString('base64')}\r\n\r\n`,
  )
  return (await text(socket)).replaceAll(/[0-9a-f]{8}-[\w-]{27}/g, '<id>')
}
const pathOf = (id: string, ticket: string): string => `/api/v1/managed_agents/sessions/${id}/tty?ticket=${ticket}`

test('a ticket opens the terminal of its session, for 30 s, and says where', async () => {
  const before = Date.now()
  const { status, body, headers } = await api.call<{ ticket: string; expires_at: string; url: string }>(
    'POST',
    `/sessions/${session.id}/tty-ticket`,
  )
  expect(status).toBe(200)
  expect(Buffer.from(body.ticket, 'base64url')).toHaveLength(32)
  expect(body.url).toBe(pathOf(session.id, body.ticket))
  expect(headers.get('cache-control')).toBe('no-store')
  const left = Date.parse(body.expires_at) - before
  expect(left).toBeGreaterThan(20_000)
  expect(left).toBeLessThan(60_000)
  await using terminal = await open(body.url)
  terminal.type('echo $((40 + 2))\r')
  await terminal.until(/^42$/m)
})

test('the session says where its terminal is, and gives no token of the whole platform away', async () => {
  const { body } = await api.call('GET', `/sessions/${session.id}`)
  expect(body).toMatchObject({
    supports_tui: true,
    tty_url: `/api/v1/managed_agents/sessions/${session.id}/tty`,
    tty_token: null,
    harness_session_id: 'tty',
  })
})

test('wrong, used, expired and foreign tickets get the same 401 before the upgrade, for sessions that there are and that there are not', async () => {
  const other = await buildTerminalSession(api)
  const used = await session.ticket()
  await (await open(used))[Symbol.asyncDispose]()
  const expired = await session.ticket()
  await api.deps.sql.query("update terminal_ticket set expires_at = now() - interval '1 second'")
  const foreign = (await other.ticket()).split('ticket=')[1]!
  const refused = pathOf(session.id, 'x'.repeat(43))
  const answer = await raw(refused)
  expect(answer).toMatch(/^HTTP\/1\.1 401 Unauthorized\r\n/)
  expect(answer).toContain('"code":"unauthorized"')
  for (const path of [
    used,
    expired,
    pathOf(session.id, foreign),
    pathOf(randomUUID(), 'x'.repeat(43)),
    pathOf(randomUUID(), foreign),
    pathOf('no-id', 'x'.repeat(43)),
    pathOf(session.id, ''),
    pathOf(session.id, '').split('?')[0]!,
    `${pathOf(session.id, '')}${TEST_MASTER_KEY.replaceAll(' ', '%20')}`,
  ])
    expect([path, await raw(path)]).toEqual([path, answer])
  // It was shown where it is not good; it still is where it is.
  await (await open(pathOf(other.id, foreign)))[Symbol.asyncDispose]()
})

test('of many who show one ticket at once, to several replicas, one gets in', async () => {
  const replica = await startServer(api.deps, { host: '127.0.0.1', port: 0 })
  try {
    const path = await session.ticket()
    const urls = Array.from({ length: 10 }, (_, i) => (i % 2 === 0 ? api.url : replica.url))
    const answers = await Promise.allSettled(urls.map((url) => open(path, {}, url)))
    const opened = answers.filter(({ status }) => status === 'fulfilled')
    expect(opened).toHaveLength(1)
    for (const each of answers) {
      if (each.status === 'fulfilled') await each.value[Symbol.asyncDispose]()
      else expect(each.reason).toMatchObject({ name: 'Refused', status: 401 })
    }
  } finally {
    await replica.drain()
  }
})

test('a ticket is for who got it: of who shows another key, or got it with one, it is none', async () => {
  await expect(open(await session.ticket(), { authorization: 'Bearer somebody' })).rejects.toMatchObject({
    status: 401,
  })
  const same = await open(await session.ticket(), { authorization: `Bearer ${TEST_MASTER_KEY}` })
  await same[Symbol.asyncDispose]()
  const path = await session.ticket()
  const config = { ...api.deps.config, masterKey: 'another master key' }
  const rotated = await startServer({ ...api.deps, config }, { host: '127.0.0.1', port: 0 })
  await expect(open(path, {}, rotated.url)).rejects.toMatchObject({ status: 401 })
  await rotated.drain()
})

test('clients of the reference may call it a token', async () => {
  const path = (await session.ticket()).replace('ticket=', 'token=')
  const ticket = path.split('token=')[1]!
  await using terminal = await open(path, { authorization: `Bearer ${ticket}` })
  await terminal.until(/\$ $/)
})

test('pages of other sites do not open terminals, those of this one do', async () => {
  const path = await session.ticket()
  const refused = await open(path, { origin: 'https://elsewhere.example.com' }).catch((error: unknown) => error)
  expect(refused).toBeInstanceOf(Refused)
  expect(JSON.parse((refused as Refused).body)).toMatchObject({ code: 'forbidden_origin' })
  await (await open(path, { origin: api.url }))[Symbol.asyncDispose]()
  const { baseUrl } = api.deps.config
  await (await open(await session.ticket(), { origin: baseUrl }))[Symbol.asyncDispose]()
})

test('only with a good ticket is it told that a session has ended, is not ready, moves, or does not answer', async () => {
  const own = await buildTerminalSession(api)
  const refusal = async (path: string): Promise<[number, string]> => {
    const error = (await open(path).catch((reason: unknown) => reason)) as Refused
    return [error.status, (JSON.parse(error.body) as Failure).code]
  }
  const set = (assignments: string) => api.deps.sql.query(`update session set ${assignments} where id = $1`, [own.id])
  await set("status = 'creating'")
  expect(await refusal(await own.ticket())).toEqual([409, 'not_ready'])
  await set("status = 'ready', attempt = attempt + 1")
  expect(await refusal(await own.ticket())).toEqual([503, 'unavailable'])
  await set('attempt = attempt - 1')
  const { endpoint } = own.sandbox
  await api.deps.sql.query("update sandbox set endpoint = 'http://127.0.0.1:9' where id = $1", [own.sandbox.id])
  expect(await refusal(await own.ticket())).toEqual([503, 'unavailable'])
  await api.deps.sql.query('update sandbox set endpoint = $2 where id = $1', [own.sandbox.id, endpoint])
  const late = await own.ticket()
  await api.call('DELETE', `/sessions/${own.id}`)
  expect(await refusal(late)).toEqual([410, 'gone'])
  expect(await refusal(late)).toEqual([401, 'unauthorized'])
  const { status } = await api.call('POST', `/sessions/${own.id}/tty-ticket`)
  expect(status).toBe(410)
})

test('a session with conversations has no terminal, and one that is a terminal takes no messages', async () => {
  const agent = await api.call<{ id: string }>('POST', '/agents', { body: { model: 'm', harness_id: 'light' } })
  await api.warmSandbox(agent.body.id)
  const talking = await api.call<{ id: string }>('POST', `/agents/${agent.body.id}/session`)
  const ticket = await api.call<Failure>('POST', `/sessions/${talking.body.id}/tty-ticket`)
  expect(ticket).toMatchObject({ status: 409, body: { code: 'no_terminal' } })
  for (const route of ['message', 'message_stream']) {
    const sent = await api.call<Failure>('POST', `/sessions/${session.id}/${route}`, { body: { text: 'hello' } })
    expect(sent).toMatchObject({ status: 409, body: { code: 'terminal_session' } })
  }
  const first = await api.call<Failure>('POST', `/agents/${session.agentId}/session`, {
    body: { initial_prompt: 'hi' },
  })
  expect(first).toMatchObject({ status: 422, body: { details: [{ path: 'initial_prompt' }] } })
})

test('a process carries so many terminals and no more, also when they come at once; who comes too late is refused before the upgrade', async () => {
  const draining = new AbortController()
  const server = createServer({ shouldUpgradeCallback: wantsTerminal })
  const terminals = serveTerminals(server, { ...api.deps, drain: draining.signal }, { max: 2 })
  await using ending = new AsyncDisposableStack()
  ending.defer(async () => {
    draining.abort()
    await terminals.drained()
    server.close()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const paths = await Promise.all(Array.from({ length: 6 }, () => session.ticket()))
  const answers = await Promise.allSettled(paths.map((path) => open(path, {}, url)))
  const opened = answers.filter((each) => each.status === 'fulfilled').map(({ value }) => value)
  const refused = answers.filter((each) => each.status === 'rejected').map(({ reason }) => reason as Refused)
  expect(opened).toHaveLength(2)
  expect(refused.map(({ status, headers }) => [status, headers['retry-after']])).toEqual(
    Array.from({ length: 4 }, () => [503, '1']),
  )
  const kept = await session.ticket()
  await expect(open(kept, {}, url)).rejects.toMatchObject({ status: 503 })
  await opened[0]![Symbol.asyncDispose]()
  const again = await until('a place', 20_000, () => open(kept, {}, url).catch(() => null))
  draining.abort()
  for (const each of [opened[1]!, again]) expect(await each.closed).toMatchObject({ code: 1012 })
})

test('without an upgrade it says what it wants', async () => {
  const answer = await api.call<Failure>('GET', `/sessions/${session.id}/tty`)
  expect(answer).toMatchObject({ status: 426, body: { code: 'upgrade_required' } })
  expect(answer.headers.get('upgrade')).toBe('websocket')
})

test('tickets are in no line of the log, and what nobody uses does not stay', async () => {
  const tickets = [await session.ticket(), await session.ticket()].map((path) => path.split('ticket=')[1]!)
  await (await open(pathOf(session.id, tickets[0]!)))[Symbol.asyncDispose]()
  await open(pathOf(session.id, tickets[0]!)).catch(() => undefined)
  const lines = api.logged.join('')
  expect(lines).toContain('/sessions/:id/tty 101')
  expect(lines).toContain('/sessions/:id/tty 401')
  for (const ticket of tickets) expect(lines).not.toContain(ticket)
  const { rows } = { rows: await api.deps.sql.query<{ hash: string }>('select hash from terminal_ticket') }
  for (const ticket of tickets) expect(rows.map(({ hash }) => hash)).not.toContain(ticket)
  await api.deps.sql.query("update terminal_ticket set expires_at = now() - interval '1 second'")
  await session.ticket()
  expect(await api.deps.sql.query('select hash from terminal_ticket')).toHaveLength(1)
})
