import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals'
import { WEBHOOK_EVENTS } from '../domain/webhook.ts'
import type { WebhookEvent } from '../domain/webhook.ts'
import { startTestApi } from '../test/api.ts'
import type { Answer, Failure, TestApi } from '../test/api.ts'
import { buildAgent } from '../test/builders.ts'
import { startReceiver, status, verified } from '../test/receiver.ts'
import type { Received, Receiver } from '../test/receiver.ts'
import { until } from '../test/until.ts'
import { createSealer } from '../vault/seal.ts'
import { WEBHOOK_PAYLOADS } from './schemas/webhook-payload.ts'
import type { Webhook, WebhookDelivery } from './schemas/webhook.ts'

// Deliveries go through a worker, on a machine on which everything else goes on.
jest.setTimeout(120_000)

type WithSecret = Webhook & { secret: string }

let api: TestApi
let receiver: Receiver
beforeAll(async () => {
  api = await startTestApi({ worker: true, env: { WEBHOOK_ALLOW_PRIVATE_TARGETS: 'true', WARM_POOL_SIZE: '0' } })
}, 120_000)
afterAll(async () => api?.[Symbol.asyncDispose](), 60_000)
beforeEach(async () => {
  receiver = await startReceiver()
})
afterEach(async () => {
  for (const { id } of (await api.call<Webhook[]>('GET', '/webhooks')).body) await api.call('DELETE', `/webhooks/${id}`)
  await receiver[Symbol.asyncDispose]()
})

const create = async (over: object = {}): Promise<WithSecret> => {
  const body = { url: `${receiver.url}/hook?key=1`, events: [...WEBHOOK_EVENTS], ...over }
  const made = await api.call<WithSecret>('POST', '/webhooks', { body })
  expect(made.status).toBe(200)
  return made.body
}
const ended = { events: ['session.ended'] }
const get = async (id: string) => (await api.call<Webhook>('GET', `/webhooks/${id}`)).body
const delivery = async ({ webhook_id, id }: WebhookDelivery) =>
  (await api.call<WebhookDelivery>('GET', `/webhooks/${webhook_id}/deliveries/${id}`)).body
const deliveries = async (id: string, query = '') =>
  (await api.call<WebhookDelivery[]>('GET', `/webhooks/${id}/deliveries${query}`)).body
const reaches = (one: WebhookDelivery, wanted: string): Promise<WebhookDelivery> =>
  until(`the delivery is ${wanted}`, 60_000, async () => {
    const now = await delivery(one)
    return now.status === wanted ? now : null
  })
const tried = (one: WebhookDelivery, times: number): Promise<WebhookDelivery> =>
  until(`the delivery was tried ${times} times`, 60_000, async () => {
    const now = await delivery(one)
    return now.attempt_count >= times ? now : null
  })
const redeliver = (one: WebhookDelivery) =>
  api.call<WebhookDelivery & Failure>('POST', `/webhooks/${one.webhook_id}/deliveries/${one.id}/redeliver`)
const sendTest = async (id: string) => (await api.call<WebhookDelivery>('POST', `/webhooks/${id}/test`)).body
const { sql } = { sql: <T>(text: string, params: unknown[] = []) => api.deps.sql.query<T>(text, params) }

/** A session that ends, and the delivery that tells a webhook for that alone. */
const happening = async (webhookId: string): Promise<WebhookDelivery> => {
  const agent = await buildAgent(api.deps.sql)
  const opened = await api.call<{ id: string }>('POST', `/agents/${agent.id}/session`)
  await api.call('DELETE', `/sessions/${opened.body.id}`)
  const [told] = await deliveries(webhookId, `?session_id=${opened.body.id}`)
  expect(told?.type).toBe('session.ended')
  return told!
}
const idsOf = (received: Received[]) => received.map(({ headers }) => headers['webhook-id'])

describe('a webhook', () => {
  test('is shown with its secret when it is made, and without from then on', async () => {
    const made = await create({ description: 'for the chat' })
    expect(made).toMatchObject({
      url: `${receiver.url}/hook?key=1`,
      events: [...WEBHOOK_EVENTS],
      agent_id: null,
      description: 'for the chat',
      enabled: true,
      disabled_reason: null,
      failing_since: null,
      previous_secret_expires_at: null,
      secret: expect.stringMatching(/^whsec_[A-Za-z0-9+/]{43}=$/),
    })
    const { secret, ...shown } = made
    expect(await get(made.id)).toEqual(shown)
    expect((await api.call('GET', '/webhooks')).body).toEqual([shown])
    expect((await api.call('PATCH', `/webhooks/${made.id}`, { body: { description: null } })).body).toEqual({
      ...shown,
      description: null,
      updated_at: expect.any(String),
    })
    const [{ stored } = { stored: '' }] = await sql<{ stored: string }>(
      'select secrets::text stored from webhook where id = $1',
      [made.id],
    )
    expect(stored).toContain('enc:v1:')
    expect(stored).not.toContain(secret.slice(6))
    expect(api.logged.join('')).not.toContain(secret.slice(6))
  })

  test('is listed by agent, changed, and deleted once', async () => {
    const agent = await buildAgent(api.deps.sql)
    const [own, other] = [await create({ agent_id: agent.id }), await create({ events: ['turn.finished'] })]
    const listed = async (query: string) =>
      (await api.call<Webhook[]>('GET', `/webhooks${query}`)).body.map(({ id }) => id)
    expect(await listed('')).toEqual([own.id, other.id])
    expect(await listed(`?agent_id=${agent.id}`)).toEqual([own.id])
    expect(await listed('?agent_id=nobody')).toEqual([])
    const changes = { url: `${receiver.url}/new`, events: ['session.failed'], agent_id: agent.id }
    expect((await api.call('PATCH', `/webhooks/${other.id}`, { body: changes })).body).toMatchObject(changes)
    expect((await api.call('PATCH', `/webhooks/${other.id}`, { body: { agent_id: null } })).body).toMatchObject({
      ...changes,
      agent_id: null,
    })
    expect((await api.call('DELETE', `/webhooks/${other.id}`)).status).toBe(204)
    for (const [method, path] of [
      ['GET', ''],
      ['DELETE', ''],
      ['PATCH', ''],
      ['GET', '/deliveries'],
      ['POST', '/test'],
      ['POST', '/rotate_secret'],
    ] as const)
      expect(
        await api.call(method, `/webhooks/${other.id}${path}`, method === 'PATCH' ? { body: {} } : {}),
      ).toMatchObject({
        status: 404,
        body: { code: 'not_found' },
      })
    expect(await listed('')).toEqual([own.id])
  })

  test.each<[object, string]>([
    [{ url: 'ftp://example.com' }, 'url'],
    [{ url: 'nonsense' }, 'url'],
    [{ url: 'https://user:pass@example.com' }, 'url'],
    [{ url: `https://example.com/${'x'.repeat(2_000)}` }, 'url'],
    [{ events: [] }, 'events'],
    [{ events: ['session.born'] }, 'events[0]'],
    [{ events: ['turn.finished', 'turn.finished'] }, 'events'],
    [{ agent_id: randomUUID() }, 'agent_id'],
    [{ agent_id: 'nobody' }, 'agent_id'],
    [{ secret: 'whsec_mine' }, 'secret'],
    [{ enabled: 'yes' }, 'enabled'],
  ])('that is given %j is refused, with the path', async (over, path) => {
    const body = { url: receiver.url, events: ['turn.finished'], ...over }
    const refused = await api.call<Failure>('POST', '/webhooks', { body })
    expect(refused).toMatchObject({ status: 422, body: { code: 'invalid' } })
    expect(refused.body.details?.map((detail) => detail.path)).toEqual([path])
    const { id } = await create()
    expect(await api.call('PATCH', `/webhooks/${id}`, { body: over })).toMatchObject({ status: 422 })
  })
})

test('a whole session is told, in the shapes of the document, and each request verifies', async () => {
  const { id, secret } = await create()
  const agent = await api.call<{ id: string }>('POST', '/agents', {
    body: { name: 'told', model: 'scripted', harness_id: 'light', permissions: 'ask' },
  })
  const session = await api.call<{ id: string; status: string }>(
    'POST',
    `/agents/${agent.body.id}/session?wait=ready`,
    {
      body: { title: 'a title' },
    },
  )
  expect(session.body.status).toBe('ready')
  const path = `/sessions/${session.body.id}`
  const reply = api.call('POST', `${path}/message`, { body: { text: 'ask execute rm\nhello' } })
  const asked = await until(
    'the harness asks',
    60_000,
    async () => (await api.call<{ id: string }[]>('GET', `${path}/permissions`)).body[0],
  )
  await api.call('POST', `${path}/permissions/${asked.id}`, { body: { decision: 'allow' } })
  expect((await reply).status).toBe(200)
  await api.call('DELETE', path)
  await until('all is delivered', 60_000, async () => (await deliveries(id, '?status=delivered')).length === 4)
  const told = receiver.received.map((request) => verified(request, secret))
  const order = (data: Record<string, unknown>): number => Number(data['seq'])
  expect(told.toSorted((a, b) => order(a.data) - order(b.data)).map(({ type }) => type)).toEqual([
    'session.ready',
    'session.needs_input',
    'turn.finished',
    'session.ended',
  ])
  for (const { type, timestamp, data } of told) {
    const { shape } = WEBHOOK_PAYLOADS[type as WebhookEvent].schema
    // Nothing that the document does not name.
    expect(shape['data']).toBeDefined()
    expect((shape['data'] as never as { strict(): { parse(value: unknown): unknown } }).strict().parse(data)).toEqual(
      data,
    )
    expect(data).toMatchObject({ session_id: session.body.id, agent_id: agent.body.id, title: 'a title' })
    expect(new Date(timestamp).toISOString()).toBe(timestamp)
  }
  expect(told.find(({ type }) => type === 'session.needs_input')?.data).toMatchObject({ permission: { id: asked.id } })
  expect(receiver.received[0]).toMatchObject({
    path: '/hook?key=1',
    headers: { 'content-type': 'application/json', 'user-agent': 'LAP-Webhooks/1' },
  })
}, 120_000)

test('a failed session is told with its reason', async () => {
  const { id, secret } = await create({ events: ['session.failed'] })
  const agent = await api.call<{ id: string }>('POST', '/agents', {
    body: { name: 'bad', model: 'scripted', harness_id: 'light', setup_cmd: 'exit 3' },
  })
  await api.call('POST', `/agents/${agent.body.id}/session`)
  await until('it is delivered', 60_000, async () => (await deliveries(id, '?status=delivered')).length === 1)
  const [told] = receiver.received.map((request) => verified(request, secret))
  expect(WEBHOOK_PAYLOADS['session.failed'].schema.parse(told)).toEqual(told)
  expect(told).toMatchObject({
    type: 'session.failed',
    data: { end_reason: 'failed:setup_failed', code: 'setup_failed' },
  })
}, 120_000)

describe('a delivery', () => {
  test('that fails is tried again under its id, with a time and a signature of its own, and its log says all of it', async () => {
    const { id, secret } = await create(ended)
    receiver.answer((response, _, n) => response.writeHead(n === 1 ? 500 : 201).end(n === 1 ? 'not now' : ''))
    const told = await happening(id)
    const failing = await tried(told, 1)
    expect(failing).toMatchObject({
      status: 'pending',
      error: 'The receiver answered 500',
      next_attempt_at: expect.any(String),
    })
    expect((await get(id)).failing_since).not.toBeNull()
    const done = await reaches(told, 'delivered')
    expect(done).toMatchObject({
      attempt_count: 2,
      error: null,
      next_attempt_at: null,
      finished_at: expect.any(String),
    })
    expect(done.attempts).toMatchObject([
      { result: 'status', status_code: 500, error: 'The receiver answered 500', response: 'not now' },
      { result: 'success', status_code: 201, error: null, response: null },
    ])
    expect((await get(id)).failing_since).toBeNull()
    expect(idsOf(receiver.received)).toEqual([told.id, told.id])
    for (const request of receiver.received) expect(verified(request, secret)).toMatchObject({ type: 'session.ended' })
    expect(receiver.received[0]?.body).toBe(receiver.received[1]?.body)
  })

  test('waits for as long as the receiver wants', async () => {
    const { id } = await create(ended)
    receiver.answer(status(429, { 'retry-after': '600' }))
    const waiting = await tried(await happening(id), 1)
    const waitMs = Date.parse(waiting.next_attempt_at ?? '') - Date.parse(waiting.attempts[0]?.at ?? '')
    expect(waitMs).toBeGreaterThanOrEqual(600_000)
    expect(waiting.status).toBe('pending')
  })

  test('is given up after 24 hours, and says so', async () => {
    const { id } = await create(ended)
    receiver.answer(status(503, { 'retry-after': '600' }))
    const told = await happening(id)
    await tried(told, 1)
    await sql(
      "update webhook_delivery set tried_from = now() - interval '24 hours', next_attempt_at = now() where id = $1",
      [told.id],
    )
    await sql(
      "insert into outbox (kind, subject, created_at, attempts, next_at) values ('deliver_webhook', $1, now(), 0, now())",
      [told.id],
    )
    expect(await reaches(told, 'failed')).toMatchObject({
      attempt_count: 2,
      error: 'The receiver answered 503',
      next_attempt_at: null,
    })
    expect(await get(id)).toMatchObject({ enabled: true, failing_since: expect.any(String) })
  })

  test('that is given up disables a webhook to which nothing was delivered for days, and what waits for it is cancelled', async () => {
    const { id } = await create(ended)
    receiver.answer(status(503, { 'retry-after': '600' }))
    const [told, other] = [await happening(id), await happening(id)]
    await Promise.all([tried(told, 1), tried(other, 1)])
    await sql("update webhook set failing_since = now() - interval '3 days' where id = $1", [id])
    await sql(
      "update webhook_delivery set tried_from = now() - interval '24 hours', next_attempt_at = now() where id = $1",
      [told.id],
    )
    await sql(
      "insert into outbox (kind, subject, created_at, attempts, next_at) values ('deliver_webhook', $1, now(), 0, now())",
      [told.id],
    )
    await reaches(told, 'failed')
    expect(await reaches(other, 'cancelled')).toMatchObject({
      error: 'The webhook was disabled (failing)',
      next_attempt_at: null,
    })
    expect(await get(id)).toMatchObject({ enabled: false, disabled_reason: 'failing', disabled_at: expect.any(String) })
    const agent = await buildAgent(api.deps.sql)
    const { body } = await api.call<{ id: string }>('POST', `/agents/${agent.id}/session`)
    await api.call('DELETE', `/sessions/${body.id}`)
    expect(await deliveries(id)).toHaveLength(2)
  })

  test('that is answered with 410 disables its webhook, which can be enabled again', async () => {
    const { id } = await create(ended)
    receiver.answer(status(410))
    const told = await happening(id)
    expect(await reaches(told, 'failed')).toMatchObject({ attempt_count: 1 })
    expect(await get(id)).toMatchObject({ enabled: false, disabled_reason: 'gone' })
    expect(await redeliver(told)).toMatchObject({ status: 409, body: { code: 'webhook_disabled' } })
    receiver.answer(status(204))
    const sent = await sendTest(id)
    await reaches(sent, 'delivered')
    expect((await api.call('PATCH', `/webhooks/${id}`, { body: { enabled: true } })).body).toMatchObject({
      enabled: true,
      disabled_reason: null,
      disabled_at: null,
      failing_since: null,
    })
    expect((await redeliver(told)).status).toBe(200)
    await reaches(told, 'delivered')
  })

  test('is sent again on request under its id, also when it was delivered, and at once when it waits', async () => {
    const { id, secret } = await create(ended)
    const told = await reaches(await happening(id), 'delivered')
    receiver.answer(status(503, { 'retry-after': '3600' }))
    expect((await redeliver(told)).body).toMatchObject({ status: 'pending', attempt_count: 1 })
    await tried(told, 2)
    receiver.answer(status(200))
    expect((await redeliver(told)).status).toBe(200)
    expect(await reaches(told, 'delivered')).toMatchObject({ attempt_count: 3 })
    expect(idsOf(receiver.received)).toEqual([told.id, told.id, told.id])
    for (const request of receiver.received) verified(request, secret)
  })

  test('is not made any more once its webhook was disabled or deleted', async () => {
    const { id } = await create(ended)
    receiver.answer(status(503, { 'retry-after': '3600' }))
    const told = await happening(id)
    await tried(told, 1)
    await api.call('PATCH', `/webhooks/${id}`, { body: { enabled: false } })
    expect(await delivery(told)).toMatchObject({ status: 'cancelled', error: 'The webhook was disabled (request)' })
    expect(await get(id)).toMatchObject({ disabled_reason: 'request' })
    await api.call('PATCH', `/webhooks/${id}`, { body: { enabled: true } })
    await redeliver(told)
    await tried(told, 2)
    await api.call('DELETE', `/webhooks/${id}`)
    const { temporal } = api.deps
    await until('its workflow has ended', 60_000, async () => {
      const { status: state } = await temporal.client.workflow.getHandle(`webhook/${told.id}`).describe()
      return state.name === 'COMPLETED'
    })
    expect(receiver.received).toHaveLength(2)
  })

  test('goes where its webhook leads at the moment of the try', async () => {
    const { id } = await create(ended)
    receiver.answer(status(302, { location: 'https://example.com/' }))
    const told = await happening(id)
    expect(await tried(told, 1)).toMatchObject({ error: expect.stringContaining('redirects are not followed') })
    await using moved = await startReceiver()
    await api.call('PATCH', `/webhooks/${id}`, { body: { url: moved.url } })
    await redeliver(told)
    await reaches(told, 'delivered')
    expect(idsOf(moved.received)).toEqual([told.id])
  })
})

test('a test says how it went, after one try', async () => {
  const { id, secret } = await create({ events: ['session.failed'] })
  const sent = await reaches(await sendTest(id), 'delivered')
  expect(sent).toMatchObject({ type: 'webhook.test', session_id: null, data: { webhook_id: id } })
  expect(receiver.received.map((request) => verified(request, secret))).toMatchObject([
    { type: 'webhook.test', data: { webhook_id: id } },
  ])
  receiver.answer((response) => response.destroy())
  expect(await reaches(await sendTest(id), 'failed')).toMatchObject({
    attempt_count: 1,
    attempts: [{ result: 'connection' }],
  })
  expect(await get(id)).toMatchObject({ enabled: true, failing_since: null })
})

test('for a day after a rotation the old secret signs beside the new one', async () => {
  const before = await create()
  const rotated = await api.call<WithSecret>('POST', `/webhooks/${before.id}/rotate_secret`)
  expect(rotated.status).toBe(200)
  expect(rotated.body.secret).not.toBe(before.secret)
  expect(
    Date.parse(rotated.body.previous_secret_expires_at ?? '') - Date.parse(rotated.body.updated_at),
  ).toBeGreaterThan(86_390_000)
  await reaches(await sendTest(before.id), 'delivered')
  const [request] = receiver.received
  for (const { secret } of [before, rotated.body])
    expect(verified(request!, secret)).toMatchObject({ type: 'webhook.test' })
  // A day later.
  await sql(
    `update webhook set secrets = jsonb_set(secrets, '{1,until}', to_jsonb(now() - interval '1 second')) where id = $1`,
    [before.id],
  )
  await reaches(await sendTest(before.id), 'delivered')
  const later = receiver.received.at(-1)!
  expect(verified(later, rotated.body.secret)).toMatchObject({ type: 'webhook.test' })
  expect(() => verified(later, before.secret)).toThrow()
  expect((await get(before.id)).previous_secret_expires_at).toBeNull()
})

test('no more than five secrets sign at once', async () => {
  const { id } = await create()
  const rotate = () => api.call('POST', `/webhooks/${id}/rotate_secret`)
  for (let i = 0; i < 4; i++) expect((await rotate()).status).toBe(200)
  const refused = await rotate()
  expect(refused).toMatchObject({ status: 429, body: { code: 'rate_limited' } })
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
})

test('a secret that cannot be opened is an error in the log of the delivery', async () => {
  const { id } = await create()
  await sql(
    `update webhook set secrets = jsonb_build_array(jsonb_build_object('sealed', $2::text, 'until', null)) where id = $1`,
    [id, createSealer(Buffer.alloc(32, 8)).seal('whsec_AAAA')],
  )
  expect(await reaches(await sendTest(id), 'failed')).toMatchObject({
    error: expect.stringContaining('ENCRYPTION_KEY'),
    attempts: [{ result: 'refused', status_code: null }],
  })
  expect(receiver.received).toEqual([])
})

test('pages of deliveries lead to one another, and can be told apart by status and type', async () => {
  const { id } = await create(ended)
  const sent = [await sendTest(id), await happening(id), await sendTest(id), await sendTest(id), await happening(id)]
  for (const one of sent) await reaches(one, 'delivered')
  const seen: string[] = []
  for (let cursor: string | null = ''; cursor !== null;) {
    const query: string = cursor === '' ? '' : `&cursor=${cursor}`
    const page: Answer<WebhookDelivery[]> = await api.call<WebhookDelivery[]>(
      'GET',
      `/webhooks/${id}/deliveries?limit=2${query}`,
    )
    seen.push(...page.body.map((one) => one.id))
    cursor = page.headers.get('x-next-cursor')
  }
  expect(seen).toEqual(sent.map((one) => one.id).toReversed())
  expect(await deliveries(id, '?type=webhook.test')).toHaveLength(3)
  expect(await deliveries(id, '?status=failed')).toEqual([])
  expect(await api.call('GET', `/webhooks/${id}/deliveries?cursor=x`)).toMatchObject({ status: 422 })
  expect(await api.call('GET', `/webhooks/${id}/deliveries?status=lost`)).toMatchObject({ status: 422 })
  const other = await create()
  expect(await api.call('GET', `/webhooks/${other.id}/deliveries/${sent[0]!.id}`)).toMatchObject({ status: 404 })
  expect(await api.call('POST', `/webhooks/${other.id}/deliveries/${sent[0]!.id}/redeliver`)).toMatchObject({
    status: 404,
  })
})

describe('without WEBHOOK_ALLOW_PRIVATE_TARGETS', () => {
  let strict: TestApi
  beforeAll(async () => {
    strict = await startTestApi()
  }, 60_000)
  afterAll(async () => strict?.[Symbol.asyncDispose]())

  test.each([
    'http://example.com/hook',
    'https://localhost/hook',
    'https://receiver.localhost/hook',
    'https://127.0.0.1/hook',
    'https://[::1]/hook',
    'https://10.0.0.1/hook',
    'https://169.254.169.254/latest/meta-data',
    'https://0x7f000001/hook',
  ])('%s is refused, with the setting that would allow it', async (url) => {
    const refused = await strict.call<Failure>('POST', '/webhooks', { body: { url, events: ['turn.finished'] } })
    expect(refused).toMatchObject({ status: 422, body: { details: [{ path: 'url' }] } })
    expect(refused.body.error).toMatch(/^url: must be .*WEBHOOK_ALLOW_PRIVATE_TARGETS=true/)
  })

  test('public names and addresses are taken, by https', async () => {
    for (const url of ['https://example.com/hook', 'https://8.8.8.8/hook', 'https://[2606:4700::1111]:8443/hook']) {
      const made = await strict.call<Webhook>('POST', '/webhooks', { body: { url, events: ['turn.finished'] } })
      expect({ url, status: made.status }).toEqual({ url, status: 200 })
      const changed = await strict.call('PATCH', `/webhooks/${made.body.id}`, { body: { url: 'https://10.0.0.1/' } })
      expect(changed.status).toBe(422)
    }
  })
})
