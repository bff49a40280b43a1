import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { recordDecision } from '../db/pool.ts'
import { sandboxFailed } from '../db/sandboxes.ts'
import { endSession } from '../db/session-end.ts'
import type { Diagnosis } from './schemas/diagnose.ts'
import { Diagnosis as DiagnosisSchema } from './schemas/diagnose.ts'
import type { Session } from './schemas/session.ts'
import { startTestApi } from '../test/api.ts'
import type { Failure, TestApi } from '../test/api.ts'

let api: TestApi
beforeAll(async () => {
  api = await startTestApi()
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
})

/** Each with a template of its own, so that no test claims another's sandbox. */
let made = 0
const createAgent = async (): Promise<string> => {
  const body = { model: 'demo', harness_id: 'light', setup_cmd: `: ${made++}` }
  return (await api.call<{ id: string }>('POST', '/agents', { body })).body.id
}
const open = async (agentId: string): Promise<Session> =>
  (await api.call<Session>('POST', `/agents/${agentId}/session`)).body
const diagnose = async ({ id }: Session): Promise<Diagnosis> => {
  const { status, body } = await api.call<Diagnosis>('GET', `/sessions/${id}/diagnose`)
  expect(status).toBe(200)
  expect(DiagnosisSchema.safeParse(body).error).toBeUndefined()
  return body
}
const codes = ({ detected_issues }: Diagnosis): string[] => detected_issues.map(({ code }) => code)

test('a warm session: its sandbox answers, its log is there, the start is told moment by moment', async () => {
  const agent = await createAgent()
  const sandbox = await api.warmSandbox(agent)
  const session = await open(agent)
  const found = await diagnose(session)
  expect(found).toMatchObject({
    session: { session_id: session.id, agent_id: agent, status: 'ready', task_arn: sandbox.name, attempt: 1 },
    agent: { agent_id: agent, harness_id: 'light', model: 'demo' },
    pod: { exists: true, phase: 'Running', driver: 'local', state: 'claimed', ready: true },
    pod_logs_tail: { available: true, text: expect.stringContaining('warmed up') },
    harness_probe: { reachable: true, status: 200, state: 'bound' },
    warm_pool: { claimed: 1, warm: 0, configured_size: 2, claim_outcome: 'hit', last_decision: null },
    start: { spawn_mode: 'warm', phases: session.phases, total_ms: expect.any(Number) },
    sandboxes: [{ id: sandbox.id, state: 'claimed', epoch: 1 }],
  })
  expect(codes(found)).toContain('warm_pool_empty_for_agent')
})

test('Temporal down is said in its own section, and nothing else suffers', async () => {
  const found = await diagnose(await open(await createAgent()))
  expect(found.workflow).toMatchObject({ reachable: false, run_id: null, error: expect.any(String) })
  expect(codes(found)).not.toContain('workflow_missing')
})

test('the pool’s last decision comes with its reason', async () => {
  const agent = await createAgent()
  const session = await open(agent)
  await recordDecision(api.deps.sql, agent, {
    share: 1,
    decision: 'wait',
    reason: 'both starts are taken by others',
    want: 1,
  })
  expect((await diagnose(session)).warm_pool.last_decision).toMatchObject({
    decision: 'wait',
    reason: 'both starts are taken by others',
    share: 1,
    decided_at: expect.any(String),
  })
})

test('a sandbox that died is unreachable; once it is known to be lost, the kept evidence answers for it', async () => {
  const agent = await createAgent()
  const sandbox = await api.warmSandbox(agent)
  const session = await open(agent)
  const { details } = await api.driver.inspect(sandbox.name)
  process.kill((details as { pid: number }).pid, 'SIGKILL')
  const dead = await diagnose(session)
  expect(dead.harness_probe).toMatchObject({ reachable: false, error: expect.any(String) })
  expect(dead.pod_logs_tail).toMatchObject({ available: false })
  expect(codes(dead)).toContain('harness_unreachable')

  const evidence = await api.driver.inspect(sandbox.name)
  await sandboxFailed(api.deps.sql, sandbox.id, { code: 'sandbox_lost', message: 'killed', evidence })
  const known = await diagnose(session)
  expect(known).toMatchObject({
    pod: { exists: false, state: 'failed', failure_code: 'sandbox_lost', failure_message: 'killed' },
    pod_logs_tail: { available: true, text: expect.stringContaining('warmed up') },
    harness_probe: null,
  })
  expect(codes(known)).toContain('sandbox_lost')
  const logs = await api.call<string>('GET', `/sessions/${session.id}/sandbox_logs?tailLines=1`)
  expect(logs.status).toBe(200)
  expect(logs.body.split('\n')).toHaveLength(1)
})

test('a failed session names its cause, also when its agent is gone', async () => {
  const agent = await createAgent()
  const session = await open(agent)
  const reason = 'Remote branch nope not found'
  await endSession(api.deps.sql, session.id, { status: 'failed', code: 'clone_failed', reason })
  await api.call('DELETE', `/agents/${agent}`)
  const found = await diagnose(session)
  expect(found.session).toMatchObject({ status: 'failed', failure_code: 'clone_failed', failure_reason: reason })
  expect(found.agent).toMatchObject({ agent_id: agent })
  const issue = found.detected_issues.find(({ code }) => code === 'session_failed')
  expect(issue).toMatchObject({
    severity: 'high',
    message: expect.stringContaining(reason),
    recommended_action: expect.any(String),
  })
})

test('the log of a sandbox is text; a failure to get it is an error status', async () => {
  const agent = await createAgent()
  const sandbox = await api.warmSandbox(agent)
  const session = await open(agent)
  const path = `/sessions/${session.id}/sandbox_logs`
  const { status, headers, body } = await api.call<string>('GET', path)
  expect({ status, type: headers.get('content-type') }).toEqual({ status: 200, type: 'text/plain; charset=utf-8' })
  expect(body).toContain('warmed up')
  await new Promise((resolve) => setTimeout(resolve, 1_100))
  expect((await api.call<string>('GET', `${path}?sinceSeconds=1`)).body).toBe('')
  const { details } = await api.driver.inspect(sandbox.name)
  process.kill((details as { pid: number }).pid, 'SIGKILL')
  expect(await api.call<Failure>('GET', path)).toMatchObject({ status: 502, body: { code: 'upstream' } })
  const cold = await open(await createAgent())
  expect(await api.call<Failure>('GET', `/sessions/${cold.id}/sandbox_logs`)).toMatchObject({ status: 404 })
  for (const query of ['tailLines=x', 'sinceSeconds=0', 'sinceSeconds=3601'])
    expect(await api.call<Failure>('GET', `${path}?${query}`)).toMatchObject({ status: 422 })
})

test('an unknown session is 404', async () => {
  for (const kind of ['diagnose', 'sandbox_logs'])
    expect(await api.call('GET', `/sessions/nope/${kind}`)).toMatchObject({ status: 404, body: { code: 'not_found' } })
})
