import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { endSession } from '../db/session-end.ts'
import type { Session } from './schemas/session.ts'
import { startTestApi } from '../test/api.ts'
import type { Failure, TestApi } from '../test/api.ts'
import { buildSession } from '../test/builders.ts'

let api: TestApi
beforeAll(async () => {
  api = await startTestApi()
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
})

const createAgent = async (body: object = {}): Promise<string> =>
  (await api.call<{ id: string }>('POST', '/agents', { body: { model: 'demo', harness_id: 'light', ...body } })).body.id
const open = (agentId: string, body: object = {}, query = '') =>
  api.call<Session>('POST', `/agents/${agentId}/session${query}`, { body })
const kill = (pid: number | undefined): void => void process.kill(pid ?? 0, 'SIGKILL')
const pidOf = async (name: string): Promise<number> => {
  const { details } = await api.driver.inspect(name)
  return (details as { pid: number }).pid
}

test('a warm create answers ready within the request, with Temporal down, and tells where the time went', async () => {
  const agent = await createAgent()
  const sandbox = await api.warmSandbox(agent)
  const { status, body: session } = await open(agent, { title: 'Fix it' })
  expect(status).toBe(200)
  expect(session).toMatchObject({
    agent_id: agent,
    title: 'Fix it',
    title_preview: 'Fix it',
    status: 'ready',
    phase: 'ready',
    spawn_mode: 'warm',
    claim_outcome: 'hit',
    task_arn: sandbox.name,
    sandbox_url: sandbox.endpoint,
    attempt: 1,
    harness_session_id: expect.stringMatching(/^ses_/),
    phases: { claimed: expect.any(Number), bound: expect.any(Number), ready: expect.any(Number) },
  })
  expect((await api.call('GET', `/sessions/${session.id}`)).body).toEqual(session)
  expect(await api.deps.temporal.isReachable()).toBe(false)
  const left = await api.deps.sql.query('select kind from outbox where subject = $1', [session.id])
  expect(left).toEqual([{ kind: 'start_session' }])
})

test('sandboxes of the pool that are dead are discarded, and the next one answers the same request', async () => {
  const agent = await createAgent()
  const [first, second, third] = [
    await api.warmSandbox(agent),
    await api.warmSandbox(agent),
    await api.warmSandbox(agent),
  ]
  for (const one of [first, second]) kill(await pidOf(one.name))
  const { body: session } = await open(agent)
  expect(session).toMatchObject({ status: 'ready', spawn_mode: 'warm', attempt: 3, task_arn: third.name })
  const claims = await api.deps.sql.query(
    'select outcome, sandbox_id from claim where session_id = $1 order by attempt',
    [session.id],
  )
  expect(claims).toEqual([
    { outcome: 'miss_dead', sandbox_id: first.id },
    { outcome: 'miss_dead', sandbox_id: second.id },
    { outcome: 'hit', sandbox_id: third.id },
  ])
  const dead = await api.deps.sql.query('select state, failure_code from sandbox where id = any($1::uuid[])', [
    `{${first.id},${second.id}}`,
  ])
  const lost = { state: 'failed', failure_code: 'sandbox_lost' }
  expect(dead).toEqual([lost, lost])
})

test('when every warm sandbox is dead the session starts cold and says so', async () => {
  const agent = await createAgent()
  const sandbox = await api.warmSandbox(agent)
  kill(await pidOf(sandbox.name))
  expect((await open(agent)).body).toMatchObject({
    status: 'creating',
    spawn_mode: 'cold',
    claim_outcome: 'miss_dead',
    phase: 'creating_sandbox',
  })
})

test('twenty creates at once on a pool of two: two are warm, each with a sandbox of its own', async () => {
  const agent = await createAgent()
  const warm = await Promise.all([api.warmSandbox(agent), api.warmSandbox(agent)])
  const sessions = await Promise.all(Array.from({ length: 20 }, () => open(agent)))
  expect(sessions.every(({ status }) => status === 200)).toBe(true)
  const hits = sessions.map(({ body }) => body).filter(({ spawn_mode }) => spawn_mode === 'warm')
  expect(hits).toHaveLength(2)
  expect(new Set(hits.map(({ task_arn }) => task_arn))).toEqual(new Set(warm.map(({ name }) => name)))
  expect(hits.every(({ status }) => status === 'ready')).toBe(true)
})

test('a session without a title is shown by what the user said first', async () => {
  const agent = await createAgent({ branch: 'untitled' })
  const { body: made } = await open(agent, { initial_prompt: 'Look  at\nthis: ' + 'x'.repeat(100) })
  expect(made.title_preview).toMatch(/^Look at this: x{45}…$/)
  const { body: got } = await api.call<Session>('GET', `/sessions/${made.id}`)
  expect(got).toMatchObject({ title: null, title_preview: made.title_preview })
})

test('an agent with the same template is served by another one’s pool', async () => {
  const [owner, other] = [await createAgent({ branch: 'main', name: 'owner' }), await createAgent({ name: 'other' })]
  const sandbox = await api.warmSandbox(owner)
  expect((await open(other)).body).toMatchObject({
    status: 'ready',
    claim_outcome: 'hit_shared',
    task_arn: sandbox.name,
  })
})

test('without a warm sandbox the answer is creating and cold, with the reason', async () => {
  const agent = await createAgent({ branch: 'nothing-is-warm-of-this' })
  expect((await open(agent)).body).toMatchObject({
    status: 'creating',
    spawn_mode: 'cold',
    claim_outcome: 'miss_dormant',
    sandbox_url: null,
    task_arn: null,
  })
  expect((await open(agent)).body.claim_outcome).toBe('miss_empty')
})

test('values of a session’s environment are nowhere to be read: not in replies, lists, log lines, or the database', async () => {
  const agent = await createAgent()
  const secret = 'hunter2-of-a-session'
  const { body: session } = await open(agent, { env_vars: { TOKEN: secret } })
  const seen = await Promise.all([
    api.call('GET', `/sessions/${session.id}`),
    api.call('GET', `/sessions?agent_id=${agent}`),
    api.call('GET', `/sessions/${session.id}/diagnose`),
    api.call('GET', `/sessions/${session.id}/log`),
    api.deps.sql.query('select * from session'),
    api.deps.sql.query('select * from event'),
  ])
  expect(JSON.stringify([session, seen, api.logged])).not.toContain(secret)
})

test('?wait=ready answers as soon as the session leaves creating', async () => {
  const agent = await createAgent({ branch: 'cold-one' })
  const waiting = open(agent, {}, '?wait=ready')
  const row = async () =>
    (await api.deps.sql.query<{ id: string }>('select id from session where agent_id = $1', [agent]))[0]
  let made = await row()
  while (made === undefined) made = await row()
  const since = performance.now()
  await endSession(api.deps.sql, made.id, { status: 'failed', code: 'clone_failed', reason: 'no such branch' })
  expect((await waiting).body).toMatchObject({
    status: 'failed',
    failure_code: 'clone_failed',
    end_reason: 'failed:clone_failed',
  })
  expect(performance.now() - since).toBeLessThan(2_000)
})

test.each<[string, 'creating' | 'ready' | 'failed' | 'dead', string]>([
  ['creating', 'creating', 'deleted'],
  ['ready', 'ready', 'deleted'],
  ['failed', 'failed', 'failed'],
  ['dead', 'dead', 'dead'],
])('DELETE of a %s session answers at once', async (_name, state, answer) => {
  const agent = await createAgent({ setup_cmd: `: ${state}` })
  const sandbox = state === 'ready' ? await api.warmSandbox(agent) : null
  const { body: session } = await open(agent)
  expect(session.status).toBe(state === 'ready' ? 'ready' : 'creating')
  const { sql } = api.deps
  if (state === 'failed') await endSession(sql, session.id, { status: 'failed', code: 'image_pull', reason: 'x' })
  if (state === 'dead') await endSession(sql, session.id, { status: 'dead', endReason: 'idle_timeout' })
  const since = performance.now()
  expect(await api.call('DELETE', `/sessions/${session.id}`)).toMatchObject({
    status: 200,
    body: { id: session.id, status: answer },
  })
  expect(performance.now() - since).toBeLessThan(1_000)
  const { body: after } = await api.call<Session>('GET', `/sessions/${session.id}`)
  expect(after).toMatchObject({
    status: state === 'failed' ? 'failed' : 'dead',
    end_reason: { creating: 'deleted', ready: 'deleted', failed: 'failed:image_pull', dead: 'idle_timeout' }[state],
    ended_at: expect.any(String),
  })
  if (sandbox !== null)
    expect(await sql.one('select state from sandbox where id = $1', [sandbox.id])).toEqual({ state: 'ending' })
})

test('what cannot be done with an ended session is 410 and says how it ended', async () => {
  const agent = await createAgent({ branch: 'ended' })
  const { body: session } = await open(agent)
  await api.call('DELETE', `/sessions/${session.id}`)
  for (const [path, body] of [
    ['message', { text: 'x' }],
    ['message_stream', { text: 'x' }],
    ['abort'],
    ['restart'],
  ] as const) {
    const answer = await api.call<Failure>('POST', `/sessions/${session.id}/${path}`, { body })
    expect({ path, status: answer.status, ...answer.body }).toMatchObject({ path, status: 410, code: 'gone' })
    expect(answer.body.error).toContain('deleted')
  }
})

test('a restart gives the sandbox up and leaves the session ready on its way to another; while creating it is 409', async () => {
  const agent = await createAgent({ branch: 'main', setup_cmd: 'true' })
  const sandbox = await api.warmSandbox(agent)
  const { body: session } = await open(agent)
  expect((await api.call('POST', `/sessions/${session.id}/restart`)).body).toMatchObject({
    id: session.id,
    status: 'ready',
  })
  expect(await api.deps.sql.one('select state, failure_message from sandbox where id = $1', [sandbox.id])).toEqual({
    state: 'failed',
    failure_message: 'given up by a restart of the session',
  })
  const cold = await open(await createAgent({ branch: 'cold' }))
  expect(await api.call('POST', `/sessions/${cold.body.id}/restart`)).toMatchObject({
    status: 409,
    body: { code: 'conflict' },
  })
})

test('lists are newest first, filtered, and paged by a cursor that new sessions do not shift', async () => {
  const agent = await createAgent({ branch: 'many' })
  const ids: string[] = []
  for (let i = 0; i < 7; i++) ids.unshift((await open(agent, { title: `s${i}` })).body.id)
  const page = async (query: string) => {
    const { body, headers } = await api.call<Session[]>('GET', `/sessions?agent_id=${agent}&${query}`)
    return { ids: body.map(({ id }) => id), body, next: headers.get('x-next-cursor') }
  }
  const first = await page('limit=3')
  expect(first.ids).toEqual(ids.slice(0, 3))
  await open(agent)
  const second = await page(`limit=3&cursor=${first.next}`)
  expect(second.ids).toEqual(ids.slice(3, 6))
  const last = await page(`limit=3&cursor=${second.next}`)
  expect(last).toMatchObject({ ids: ids.slice(6), next: null })
  expect((await page('limit=2&offset=3')).ids).toEqual(ids.slice(2, 4))
  await api.call('DELETE', `/sessions/${ids[0]}`)
  expect((await page('status=dead')).ids).toEqual([ids[0]])
  expect((await page('status=creating')).ids).toHaveLength(7)
  expect(first.body[0]).toMatchObject({ title: 's6', response: null, origin: null })
})

test.each([
  ['limit=0', 'query.limit'],
  ['limit=1000', 'query.limit'],
  ['status=sleeping', 'query.status'],
  ['cursor=%20nonsense', 'query.cursor'],
  ['offset=-1', 'query.offset'],
])('a list with ?%s is 422 that names it', async (query, path) => {
  const answer = await api.call<Failure>('GET', `/sessions?${query}`)
  expect(answer.status).toBe(422)
  expect(answer.body.details?.map((detail) => detail.path)).toEqual([path])
})

test('unknown sessions and agents are 404, unknown fields 422', async () => {
  const agent = await createAgent()
  const unknown = '00000000-0000-4000-8000-000000000000'
  for (const id of [unknown, 'nope'])
    expect(await api.call('GET', `/sessions/${id}`)).toMatchObject({
      status: 404,
      body: { error: `session ${id} not found` },
    })
  expect(await open(unknown)).toMatchObject({ status: 404 })
  expect((await api.call<Failure>('POST', `/agents/${agent}/session`, { body: { promt: 'x' } })).body.details).toEqual([
    { path: 'promt', message: expect.stringContaining('allowed here: title, initial_prompt') },
  ])
  expect((await api.call('GET', '/sessions?agent_id=nope')).body).toEqual([])
})

test('a full platform answers 429 with Retry-After', async () => {
  const { sql } = api.deps
  const agent = await createAgent({ branch: 'full' })
  const { session } = await buildSession(sql, agent)
  await sql.query(
    `insert into session select (json_populate_record(s, json_build_object('id', gen_random_uuid(), 'agent_id', $2::text))).*
     from session s, generate_series(1, 5000) where s.id = $1`,
    [session.id, agent],
  )
  const answer = await open(agent)
  expect(answer).toMatchObject({ status: 429, body: { code: 'rate_limited' } })
  expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
  await sql.query("update session set status = 'dead' where agent_id = $1", [agent])
})
