import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { startTestApi } from '../test/api.ts'
import type { Failure, TestApi } from '../test/api.ts'
import { MASK } from './present/agent.ts'
import type { Agent } from './schemas/agent.ts'

let api: TestApi
beforeAll(async () => {
  api = await startTestApi()
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
})

const create = async (body: object = {}): Promise<Agent> =>
  (await api.call<Agent>('POST', '/agents', { body: { model: 'demo', ...body } })).body
const outbox = () => api.database.db.sql.query<{ kind: string; subject: string }>('select kind, subject from outbox')

test('an agent is what was asked for, with defaults for the rest', async () => {
  const agent = await create({ name: 'one', repo_url: 'https://example.com/a.git', setup_cmd: 'make' })
  expect(agent).toMatchObject({
    name: 'one',
    model: 'demo',
    prompt: null,
    harness_id: 'opencode',
    harness_image: 'opencode-sandbox:dev',
    repo_url: 'https://example.com/a.git',
    branch: 'main',
    setup_cmd: 'make',
    env_vars: {},
    preload_memory_limit: 10,
    template_in_sync: true,
  })
  expect(agent.template_hash).toMatch(/^[0-9a-f]{32}$/)
  expect((await api.call('GET', `/agents/${agent.id}`)).body).toEqual(agent)
})

test('an agent whose harness has no image of its own is made with the common one', async () => {
  const env = { K8S_HARNESS_IMAGE: 'common:1', K8S_HARNESS_IMAGE_OPENCODE: 'opencode:2' }
  await using platform = await startTestApi({ env })
  const imageFor = async (harness_id: string): Promise<string> => {
    const made = await platform.call<Agent>('POST', '/agents', { body: { model: 'demo', harness_id } })
    return made.body.harness_image
  }
  await expect(Promise.all(['light', 'opencode'].map(imageFor))).resolves.toEqual(['common:1', 'opencode:2'])
})

test('values of the environment are never on the wire, in a log line, or readable in the database', async () => {
  const secret = 'hunter2-very-secret'
  const agent = await create({ env_vars: { TOKEN: secret }, allow_out: ['a.com'], env_var_hosts: { TOKEN: ['a.com'] } })
  expect(agent.env_vars).toEqual({ TOKEN: MASK })
  const seen = await Promise.all([
    api.call('GET', `/agents/${agent.id}`),
    api.call('GET', '/agents'),
    api.call('PATCH', `/agents/${agent.id}`, { body: { name: 'x' } }),
    api.database.db.sql.query('select * from agent'),
  ])
  expect(JSON.stringify([agent, seen, api.logged])).not.toContain(secret)
})

test('the mask sent back keeps the stored value; a new value replaces it; what is left out is gone', async () => {
  const agent = await create({ env_vars: { A: '1', B: '2', C: '3' } })
  const patched = await api.call<Agent>('PATCH', `/agents/${agent.id}`, { body: { env_vars: { A: MASK, B: 'new' } } })
  expect(patched.body.env_vars).toEqual({ A: MASK, B: MASK })
  const row = await api.database.db.sql.one<{ env_vars: Record<string, string> }>(
    'select env_vars from agent where id = $1',
    [agent.id],
  )
  const opened = Object.entries(row!.env_vars).map(([name, sealed]) => [name, api.deps.sealer.open(sealed)])
  expect(Object.fromEntries(opened)).toEqual({ A: '1', B: 'new' })
  const nothing = await api.call<Failure>('PATCH', `/agents/${agent.id}`, { body: { env_vars: { D: MASK } } })
  expect(nothing.body.details?.[0]?.path).toBe('env_vars.D')
})

test('the template follows what a sandbox is made from, and only that; the pool is poked', async () => {
  const agent = await create()
  const patch = async (body: object) => (await api.call<Agent>('PATCH', `/agents/${agent.id}`, { body })).body
  expect((await patch({ name: 'renamed', prompt: 'Be kind.', model: 'other' })).template_hash).toBe(agent.template_hash)
  expect((await patch({ branch: 'dev' })).template_hash).not.toBe(agent.template_hash)
  expect(await outbox()).toContainEqual({ kind: 'poke_pool', subject: agent.id })
})

test('what PATCH leaves out stays, and null clears what may be empty', async () => {
  const agent = await create({ name: 'n', prompt: 'p', setup_cmd: 's' })
  const patched = await api.call<Agent>('PATCH', `/agents/${agent.id}`, { body: { prompt: null } })
  expect(patched.body).toMatchObject({ name: 'n', prompt: null, setup_cmd: 's' })
})

test('resources are a part of the template, and null gives them back to the settings', async () => {
  const plain = await create()
  expect(plain.resources).toBeNull()
  const resources = { limits: { memory: '8Gi' }, requests: { cpu: '1' } }
  const agent = await create({ resources })
  expect(agent.resources).toEqual(resources)
  expect(agent.template_hash).not.toBe(plain.template_hash)
  const patched = await api.call<Agent>('PATCH', `/agents/${agent.id}`, { body: { resources: null } })
  expect(patched.body).toMatchObject({ resources: null, template_hash: plain.template_hash })
})

test('a narrowed allow_out keeps the hosts that bound credentials need; bindings of removed variables go', async () => {
  const agent = await create({
    env_vars: { A: '1', B: '2' },
    allow_out: ['a.com', 'b.com'],
    env_var_hosts: { A: ['a.com'], B: ['b.com'] },
  })
  const narrowed = await api.call<Agent>('PATCH', `/agents/${agent.id}`, { body: { allow_out: ['c.com'] } })
  expect(narrowed.body.allow_out.toSorted()).toEqual(['a.com', 'b.com', 'c.com'])
  const fewer = await api.call<Agent>('PATCH', `/agents/${agent.id}`, { body: { env_vars: { B: MASK } } })
  expect(fewer.body.env_var_hosts).toEqual({ B: ['b.com'] })
})

test.each<[string, object, string]>([
  ['an unknown harness', { harness_id: 'nope' }, 'harness_id'],
  ['a binding without its variable', { env_var_hosts: { X: ['a.com'] } }, 'env_var_hosts.X'],
  [
    'a binding to a host that is not allowed',
    { env_vars: { X: '1' }, env_var_hosts: { X: ['a.com'] } },
    'env_var_hosts.X[0]',
  ],
  ['an unknown field', { skill_ids: [] }, 'skill_ids'],
  ['no model', { model: undefined }, 'model'],
  ['no quantity', { resources: { limits: { memory: '8 GB' } } }, 'resources.limits.memory'],
  ['an unknown resource', { resources: { limits: { gpu: '1' } } }, 'resources.limits.gpu'],
  ['more asked for than the platform allows', { resources: { requests: { cpu: '3' } } }, 'resources.requests.cpu'],
  ['a limit below what the platform asks for', { resources: { limits: { memory: '1Mi' } } }, 'resources.limits.memory'],
])('%s is 422 with its path', async (_what, body, path) => {
  const { status, body: failure } = await api.call<Failure>('POST', '/agents', { body: { model: 'demo', ...body } })
  expect(status).toBe(422)
  expect(failure.code).toBe('invalid')
  expect(failure.details?.map((detail) => detail.path)).toEqual([path])
})

test('pages: search, order, limit, offset and total', async () => {
  for (const name of ['page-c', 'page-a', 'page-b']) await create({ name })
  const page = async (query: string) =>
    (await api.call<{ data: { name: string }[]; total: number }>('GET', `/agents?search=PAGE-&sort=name&${query}`)).body
  const all = await page('order=asc')
  expect(all.data.map(({ name }) => name)).toEqual(['page-a', 'page-b', 'page-c'])
  expect(await page('order=desc&limit=1&offset=1')).toMatchObject({
    data: [{ name: 'page-b' }],
    total: 3,
    limit: 1,
    offset: 1,
  })
  expect((await api.call<Failure>('GET', '/agents?limit=abc&sort=x')).body.details?.map(({ path }) => path)).toEqual([
    'query.limit',
    'query.sort',
  ])
})

test('a deleted agent is not found, is in no list, and its sessions end', async () => {
  const agent = await create({ name: 'short-lived' })
  const session = await api.call<{ id: string }>('POST', `/agents/${agent.id}/session`)
  expect((await api.call('DELETE', `/agents/${agent.id}`)).status).toBe(204)
  expect((await api.call('GET', `/agents/${agent.id}`)).status).toBe(404)
  expect((await api.call('DELETE', `/agents/${agent.id}`)).status).toBe(404)
  expect((await api.call<{ total: number }>('GET', '/agents?search=short-lived')).body.total).toBe(0)
  expect((await api.call('GET', `/sessions/${session.body.id}`)).body).toMatchObject({
    status: 'dead',
    end_reason: 'agent_deleted',
  })
})

test('a malformed id is simply not found', async () => {
  expect((await api.call<Failure>('GET', '/agents/nope')).body).toMatchObject({
    code: 'not_found',
    error: "agent 'nope' not found",
  })
})
