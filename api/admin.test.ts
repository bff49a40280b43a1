import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { recordPoolFailure } from '../db/pool.ts'
import { AdminStats } from './schemas/admin.ts'
import type { Session } from './schemas/session.ts'
import { startTestApi } from '../test/api.ts'
import type { TestApi } from '../test/api.ts'

let api: TestApi
beforeAll(async () => {
  api = await startTestApi({ env: { WARM_POOL_SIZE: '3', WARM_POOL_TTL_MINUTES: '45' } })
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
})

const stats = async (): Promise<AdminStats> => {
  const { status, body } = await api.call<AdminStats>('GET', '/api/v1/admin/stats')
  expect(status).toBe(200)
  expect(AdminStats.safeParse(body).error).toBeUndefined()
  return body
}
const createAgent = async (name: string): Promise<string> =>
  (await api.call<{ id: string }>('POST', '/agents', { body: { name, model: 'demo', harness_id: 'light' } })).body.id
const open = async (agentId: string): Promise<Session> =>
  (await api.call<Session>('POST', `/agents/${agentId}/session`)).body

test('nothing has happened yet: zeros, no rate, no percentiles, and the settings', async () => {
  expect(await stats()).toMatchObject({
    warm_pool: {
      configured_size: 3,
      max_provisioning: 2,
      ttl_minutes: 45,
      recent_agent_hours: 24,
      counts: { provisioning: 0, warm: 0, claimed: 0, dead: 0 },
      by_agent: [],
      hit_rate: null,
      outcomes: {},
      idle_sandbox_seconds: 0,
    },
    sessions: {
      counts: { creating: 0, ready: 0, failed: 0, dead: 0 },
      by_agent: [],
      start: { warm: { count: 0, p50_ms: null }, cold: { count: 0, p50_ms: null } },
    },
    agents: { total: 0 },
    runtime: { sandbox_driver: 'local', container_port: null },
    detected_issues: [],
  })
})

test('hits and misses, sandboxes and sessions are counted, with the reason of each miss', async () => {
  const agent = await createAgent('busy')
  await open(agent)
  await api.warmSandbox(agent)
  await api.warmSandbox(agent)
  await open(agent)
  const ended = await open(agent)
  await api.call('DELETE', `/sessions/${ended.id}`)
  await open(agent)
  const found = await stats()
  expect(found.warm_pool).toMatchObject({
    counts: { provisioning: 0, warm: 0, claimed: 1, dead: 1 },
    by_agent: [{ agent_id: agent, agent_name: 'busy', claimed: 1, dead: 1, oldest_warm_at: null }],
    hit_rate: 0.5,
    outcomes: { hit: 2, miss_dormant: 1, miss_empty: 1 },
  })
  expect(found.sessions).toMatchObject({
    counts: { creating: 2, ready: 1, dead: 1, failed: 0 },
    by_agent: [{ agent_id: agent, agent_name: 'busy', creating: 2, ready: 1 }],
    start: { warm: { count: 2, p50_ms: expect.any(Number), p99_ms: expect.any(Number) }, cold: { count: 0 } },
  })
  expect(found.agents.total).toBe(1)
})

test('a pool that fails again and again is an issue, with its agent and what to do', async () => {
  const agent = await createAgent('broken')
  const reason = 'clone_failed: no such branch'
  await recordPoolFailure(api.deps.sql, agent, { reason, backoffMs: () => 60_000, breakerFailures: 1 })
  expect((await stats()).detected_issues).toEqual([
    {
      code: 'warm_pool_backoff',
      severity: 'high',
      message: expect.stringContaining(reason),
      recommended_action: expect.any(String),
      agent_id: agent,
    },
  ])
})
