import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import { sandboxFailed, sandboxGone } from '../db/sandboxes.ts'
import type { Diagnosis } from './schemas/diagnose.ts'
import { Diagnosis as DiagnosisSchema } from './schemas/diagnose.ts'
import type { SandboxHealth } from './schemas/health.ts'
import type { Session } from './schemas/session.ts'
import { startTestApi } from '../test/api.ts'
import type { Failure, TestApi } from '../test/api.ts'
import { scriptSandbox, SILENCE, startScriptedCluster } from '../test/scripted-cluster.ts'
import type { ScriptedCluster } from '../test/scripted-cluster.ts'
import { CORE, inspectorOf, SANDBOXES } from '../test/scripted-inspector.ts'

let cluster: ScriptedCluster
let api: TestApi
let session: Session
let sandbox: SandboxRow

beforeAll(async () => {
  cluster = await startScriptedCluster()
  const env = { SANDBOX_DRIVER: 'kubernetes', K8S_NAMESPACE: 'sandboxes', K8S_ACCESS: 'nodeport' }
  api = await startTestApi({ env, inspector: inspectorOf(cluster) })
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
  await cluster[Symbol.asyncDispose]()
})

/** A session in a sandbox whose supervisor is real, and whose pod and what belongs to it are scripted. */
let made = 0
beforeEach(async () => {
  const body = { model: 'demo', harness_id: 'light', setup_cmd: `: ${made++}` }
  const agent = (await api.call<{ id: string }>('POST', '/agents', { body })).body.id
  sandbox = await api.warmSandbox(agent)
  await api.deps.sql.query("update sandbox set driver = 'kubernetes' where id = $1", [sandbox.id])
  session = (await api.call<Session>('POST', `/agents/${agent}/session`)).body
  scriptSandbox(cluster, sandbox.name)
})

const diagnose = async (): Promise<Diagnosis> => {
  const { status, body } = await api.call<Diagnosis>('GET', `/sessions/${session.id}/diagnose`)
  expect(status).toBe(200)
  expect(DiagnosisSchema.safeParse(body).error).toBeUndefined()
  return body
}
const codes = ({ detected_issues }: Diagnosis): string[] => detected_issues.map(({ code }) => code)
const podPath = (): string => `${CORE}/pods/${sandbox.name}`
const gone = (): void => {
  for (const path of [
    `${SANDBOXES}/${sandbox.name}`,
    podPath(),
    `${podPath()}/log`,
    `${CORE}/services/${sandbox.name}`,
  ])
    cluster.answers.delete(path)
}

test('while its pod is there, a session is told from the cluster, and from its supervisor', async () => {
  const found = await diagnose()
  expect(found).toMatchObject({
    source: 'live',
    seen_at: expect.any(String),
    pod: { exists: true, phase: 'Running', pod_ip: '10.0.0.7', driver: 'kubernetes', state: 'claimed', ready: true },
    sandbox_cr: { exists: true },
    service: { exists: true, node_port: 30_123 },
    node: { exists: true, name: 'n1', allocated_pct: { cpu: 13, memory: 0 } },
    image_cache: { daemonset_exists: false, ready_on_pod_node: true },
    events: { items: [{ reason: 'Scheduled' }, { reason: 'Started' }] },
    pod_logs_tail: { available: true, text: 'first line\nlast line' },
    harness_probe: { reachable: true, status: 200 },
  })
  expect(codes(found)).toEqual(['warm_pool_empty_for_agent'])
})

test('a sandbox that the cluster does not have is lost before anybody has said so', async () => {
  gone()
  const found = await diagnose()
  expect(found).toMatchObject({ source: 'stored', seen_at: null, pod: { exists: false, state: 'claimed' } })
  expect(codes(found)).toContain('sandbox_lost')
  // Its supervisor answers still: as long as it does, its log is there.
  expect(found.pod_logs_tail).toMatchObject({ available: true, text: expect.stringContaining('warmed up') })
})

test('of a sandbox that went, what was seen before is told, and told as such', async () => {
  const pod = cluster.answers.get(podPath()) as { status: object }
  const waiting = { reason: 'ErrImagePull', message: 'manifest unknown' }
  const containerStatuses = [{ name: 'harness', ready: false, restartCount: 0, state: { waiting } }]
  cluster.answers.set(podPath(), { ...pod, status: { ...pod.status, phase: 'Pending', containerStatuses } })
  const evidence = await inspectorOf(cluster).inspect(sandbox.name)
  await sandboxFailed(api.deps.sql, sandbox.id, { code: 'image_pull', message: 'manifest unknown', evidence })
  gone()
  for (const state of ['failed', 'gone']) {
    if (state === 'gone') await sandboxGone(api.deps.sql, sandbox.id)
    const found = await diagnose()
    expect(found).toMatchObject({
      source: 'stored',
      seen_at: (evidence.details as { seen_at: string }).seen_at,
      pod: { exists: false, state, container_statuses: [{ waiting_reason: 'ErrImagePull' }] },
      sandbox_cr: { exists: false },
      service: { exists: false, node_port: 30_123 },
      events: { items: [{ reason: 'Scheduled' }, { reason: 'Started' }] },
      pod_logs_tail: { available: true, text: 'first line\nlast line' },
      harness_probe: null,
    })
    const issue = found.detected_issues.find(({ code }) => code === 'pod_image_pull_backoff')
    expect(issue?.message).toMatch(/^As last seen, before it went/)
    const logs = await api.call<string>('GET', `/sessions/${session.id}/sandbox_logs?tailLines=1`)
    expect(logs).toMatchObject({ status: 200, body: 'last line' })
  }
  cluster.asked.length = 0
  await diagnose()
  expect(cluster.asked).toEqual([])
})

test('a cluster that refuses everything costs its sections, and nothing else', async () => {
  const paths = [...cluster.answers.keys()].filter((path) => path.includes(sandbox.name))
  for (const path of paths) cluster.answers.set(path, { refuse: 403, message: 'forbidden for a test' })
  const found = await diagnose()
  expect(found).toMatchObject({
    source: 'live',
    pod: { exists: false, error: 'forbidden for a test', state: 'claimed' },
    sandbox_cr: { exists: false, error: 'forbidden for a test' },
    service: { exists: false, error: 'forbidden for a test' },
    node: { exists: false },
    pod_logs_tail: { available: true, text: expect.stringContaining('warmed up') },
    harness_probe: { reachable: true },
    session: { status: 'ready' },
  })
  // What is not known is no issue.
  expect(codes(found)).toEqual(['warm_pool_empty_for_agent'])
})

test('the log is the pod’s, bounded as asked; refused there, the supervisor’s; of nothing, a status', async () => {
  const path = `/sessions/${session.id}/sandbox_logs`
  const live = await api.call<string>('GET', `${path}?tailLines=10&sinceSeconds=60`)
  expect(live).toMatchObject({ status: 200, body: 'first line\nlast line' })
  expect(cluster.asked).toContain(`GET ${podPath()}/log?container=harness&tailLines=10&sinceSeconds=60`)
  cluster.answers.set(`${podPath()}/log`, { refuse: 403 })
  expect(await api.call('GET', path)).toMatchObject({ status: 200, body: expect.stringContaining('warmed up') })

  const row = (sql: string) => api.deps.sql.query(`update sandbox set ${sql} where id = $1`, [sandbox.id])
  await row("endpoint = null, state = 'provisioning'")
  expect(await api.call<Failure>('GET', path)).toMatchObject({ status: 502, body: { code: 'upstream' } })
  gone()
  expect(await api.call<Failure>('GET', path)).toMatchObject({ status: 404, body: { code: 'not_found' } })
  await row("state = 'failed', session_id = (select id from session where sandbox_id = sandbox.id)")
  expect(await api.call<Failure>('GET', path)).toMatchObject({ status: 410, body: { code: 'gone' } })
})

test('what the cluster lacks is said with its remedy, to everybody by /readyz, to operators in full; reads go on', async () => {
  const kind = cluster.answers.get('/apis/agents.x-k8s.io/v1beta1')!
  cluster.answers.delete('/apis/agents.x-k8s.io/v1beta1')
  try {
    await using lacking = await startTestApi({ env: { SANDBOX_DRIVER: 'kubernetes' }, inspector: inspectorOf(cluster) })
    const remedy = expect.stringMatching(/Sandbox objects.*Install agent-sandbox.*K8S_SANDBOX_API=pod/)
    const ready = await lacking.call('GET', '/readyz', { headers: { authorization: '' } })
    expect(ready).toMatchObject({ status: 200, body: { status: 'degraded', cluster: { ok: false, error: remedy } } })
    const health = await lacking.call<SandboxHealth>('GET', '/api/v1/health/k8s')
    expect(health).toMatchObject({
      status: 503,
      body: { ok: false, driver: 'kubernetes', workers: 0, cluster: { ok: false, warnings: [] }, error: remedy },
    })
    // Both that and the missing worker: one does not hide the other.
    expect(health.body.error).toContain('Temporal')
    expect((await lacking.call('GET', '/agents')).status).toBe(200)
  } finally {
    cluster.answers.set('/apis/agents.x-k8s.io/v1beta1', kind)
  }
})

test('a well cluster is well for /readyz, and a silent one does not keep it waiting', async () => {
  const well = await api.call('GET', '/readyz', { headers: { authorization: '' } })
  expect(well).toMatchObject({ status: 200, body: { cluster: { ok: true } } })
  cluster.answers.set('/version', SILENCE)
  const inspector = inspectorOf(cluster)
  await using silent = await startTestApi({ env: { SANDBOX_DRIVER: 'kubernetes' }, inspector })
  const startedAt = performance.now()
  const { body } = await silent.call('GET', '/readyz', { headers: { authorization: '' } })
  expect(performance.now() - startedAt).toBeLessThan(2_500)
  expect(body).toMatchObject({ status: 'degraded', cluster: { ok: false, error: expect.any(String) } })
  expect(JSON.stringify(body)).not.toContain('127.0.0.1')
  // Once it is known why, that is said.
  await inspector.health()
  const known = await silent.call('GET', '/readyz', { headers: { authorization: '' } })
  expect(known.body).toMatchObject({ cluster: { ok: false, error: expect.stringContaining('KUBECONFIG') } })
})
