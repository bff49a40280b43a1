import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import type { Diagnosis } from '../../api/schemas/diagnose.ts'
import { Diagnosis as DiagnosisSchema } from '../../api/schemas/diagnose.ts'
import type { SandboxHealth } from '../../api/schemas/health.ts'
import type { Session } from '../../api/schemas/session.ts'
import { sessionWorkflowId } from '../../domain/names.ts'
import { createKubernetesInspector } from '../../kubernetes/inspector.ts'
import { inspectorRightsFor } from '../../kubernetes/preflight.ts'
import { eventually, getOrNull } from './namespace.ts'
import { later, type Operated, operate } from './operator.ts'

const SECOND = 1_000
const MINUTE = 60 * SECOND
/** Nodes are dead to the cluster 4 s and a grace after their last word. */
const NODES_DEAD_MS = 60 * SECOND

let it: Operated
let unready: Session
beforeAll(async () => {
  it = await operate({ WARM_POOL_SIZE: '1', WARM_POOL_MAX_PROVISIONING: '1' })
}, 120_000)
afterAll(async () => it?.[Symbol.asyncDispose](), 60_000)

type Wanted = { image?: string; setup?: string }

let made = 0
const createAgent = async ({ image = 'registry.invalid/harness:1', setup }: Wanted = {}): Promise<string> => {
  const body = { model: 'm', harness_id: 'opencode', setup_cmd: setup ?? `sleep 0.0${++made}` }
  const created = await it.api.call<{ id: string }>('POST', '/agents', { body })
  const { id } = created.body
  const patched = await it.api.call('PATCH', `/agents/${id}`, { body: { harness_image: image } })
  expect([created, patched]).toMatchObject([{ status: 200 }, { status: 200 }])
  return id
}
const open = async (wanted: Wanted = {}): Promise<Session> =>
  (await it.api.call<Session>('POST', `/agents/${await createAgent(wanted)}/session`)).body

const diagnose = async ({ id }: Pick<Session, 'id'>): Promise<Diagnosis> => {
  const { status, body } = await it.api.call<Diagnosis>('GET', `/sessions/${id}/diagnose`)
  expect(status).toBe(200)
  expect(DiagnosisSchema.safeParse(body).error).toBeUndefined()
  return body
}
const has =
  (code: string) =>
  ({ detected_issues }: Diagnosis): boolean =>
    detected_issues.some((issue) => issue.code === code)
const issueOf = (found: Diagnosis, code: string) => found.detected_issues.find((issue) => issue.code === code)

/** Diagnosed again and again until it is so. */
const comes = (session: Session, isSo: (found: Diagnosis) => boolean, withinMs = 20_000): Promise<Diagnosis> =>
  eventually(() => diagnose(session), isSo, withinMs)
const ready = async (session: Session): Promise<string> => {
  const found = await comes(session, ({ session: { status } }) => status === 'ready')
  return found.session.task_arn ?? ''
}

const inNamespace = (kind: 'pods' | 'services', name: string): string =>
  `/api/v1/namespaces/${it.namespace}/${kind}/${name}`

describe('while a worker runs', () => {
  test('a session is told from the cluster, with exactly the rights that the API names', async () => {
    const session = await open()
    const name = await ready(session)
    const found = await diagnose(session)
    expect(found).toMatchObject({
      source: 'live',
      pod: { exists: true, phase: 'Running', restart_count: 0, container_statuses: [{ name: 'harness', ready: true }] },
      sandbox_cr: { exists: true, conditions: expect.arrayContaining([expect.objectContaining({ type: 'Ready' })]) },
      service: { exists: true, node_port: expect.any(Number) },
      node: {
        exists: true,
        ready_status: 'True',
        capacity: { cpu_millicores: 64_000, memory_bytes: 256 * 2 ** 30 },
        allocated_pct: { cpu: expect.any(Number), memory: expect.any(Number) },
        pod_count: expect.any(Number),
      },
      image_cache: { daemonset_exists: false },
      pod_logs_tail: { available: true, text: expect.stringContaining('\n') },
      harness_probe: { reachable: true },
      workflow: { status: 'RUNNING' },
    })
    expect(found.pod['uid']).toBe(
      (await it.kube.get<{ metadata: { uid: string } }>(inNamespace('pods', name))).metadata.uid,
    )
    expect(found.events.items.map(({ reason }) => reason)).toContain('Scheduled')
    expect(JSON.stringify(found)).not.toMatch(/"\w*error":/)
    expect(found.detected_issues.filter(({ severity }) => severity !== 'info')).toEqual([])
    const health = await it.api.call<SandboxHealth>('GET', '/api/v1/health/k8s')
    expect(health).toMatchObject({ status: 200, body: { ok: true, cluster: { ok: true, problems: [], warnings: [] } } })
    const logs = await it.api.call<string>('GET', `/sessions/${session.id}/sandbox_logs?tailLines=3`)
    expect(logs.status).toBe(200)
    expect(logs.body.split('\n')).toHaveLength(3)
  })

  test('without the rights of a cluster role all but the node is told, and which rights those are', async () => {
    const name = await ready(await open())
    const rights = inspectorRightsFor('sandbox', 'nodeport').filter(({ everywhere }) => everywhere !== true)
    const client = await it.clientWith(rights, 'namespaced')
    const { namespace } = it
    const inspector = createKubernetesInspector({ client, api: 'sandbox', namespace, access: 'nodeport' })
    expect(await inspector.health()).toMatchObject({
      ok: true,
      warnings: [{ what: expect.stringContaining('get nodes, list pods in all namespaces') }],
    })
    const { details } = await inspector.inspect(name)
    expect(details).toMatchObject({
      pod: { exists: true },
      service: { exists: true },
      node: { exists: false, error: expect.stringContaining('forbidden') },
    })
  })

  test('pod_image_pull_backoff: live while the pod waits; when it is given up, as last seen', async () => {
    const session = await open({ image: 'registry.invalid/registry-down:1' })
    const live = await comes(session, has('pod_image_pull_backoff'))
    expect(live).toMatchObject({ source: 'live', pod: { phase: 'Pending', node_name: expect.any(String) } })
    const stored = await comes(session, (found) => found.session.status === 'failed' && found.source === 'stored')
    expect(issueOf(stored, 'pod_image_pull_backoff')?.message).toContain('As last seen')
    expect(issueOf(stored, 'session_failed')?.message).toContain('image_pull')
    expect(stored).toMatchObject({ pod: { exists: false, failure_code: 'image_pull' }, seen_at: expect.any(String) })
  })

  test('session_failed and warm_pool_backoff: a set-up command that fails, in a session and in the pool', async () => {
    const session = await open({ setup: 'false' })
    const found = await comes(session, (now) => has('session_failed')(now) && has('warm_pool_backoff')(now))
    expect(issueOf(found, 'session_failed')?.message).toContain('setup_failed')
  })

  test('stale_node_host_cache_suspect: it runs, it has a port, and for two minutes nobody has had its address', async () => {
    const session = await open({ setup: 'sleep 600' })
    await comes(session, ({ pod, service }) => pod.phase === 'Running' && service.node_port !== undefined)
    expect(has('stale_node_host_cache_suspect')(await diagnose(session))).toBe(false)
    const found = await later(121 * SECOND, () => diagnose(session))
    expect(found).toMatchObject({ source: 'live', session: { status: 'creating', sandbox_url: null } })
    expect(has('stale_node_host_cache_suspect')(found)).toBe(true)
  })

  test('pod_not_ready_old: a container whose probe fails for three minutes, though the session goes on', async () => {
    unready = await open({ image: 'registry.invalid/never-ready:1' })
    await ready(unready)
    expect(has('pod_not_ready_old')(await diagnose(unready))).toBe(false)
    const found = await later(181 * SECOND, () => diagnose(unready))
    expect(found.pod.container_statuses).toMatchObject([{ name: 'harness', ready: false }])
    expect(has('pod_not_ready_old')(found)).toBe(true)
  })

  test('turn_stuck: a turn that says nothing for ten minutes', async () => {
    const session = await open()
    await ready(session)
    const gone = new AbortController()
    const body = { text: 'think' }
    const sent = it.api.call('POST', `/sessions/${session.id}/message`, { body, signal: gone.signal }).catch(() => null)
    const runs = "select 1 from turn where session_id = $1 and status = 'running' and started_at is not null"
    await eventually(async () => (await it.api.deps.sql.query(runs, [session.id]))[0] ?? null)
    expect(has('turn_stuck')(await diagnose(session))).toBe(false)
    expect(has('turn_stuck')(await later(11 * MINUTE, () => diagnose(session)))).toBe(true)
    gone.abort()
    await sent
  })

  test('sandbox_lost, info: its pod was deleted, and it went on in another sandbox', async () => {
    const session = await open()
    const name = await ready(session)
    await it.kube.remove(inNamespace('pods', name))
    const found = await comes(session, (now) => issueOf(now, 'sandbox_lost')?.severity === 'info')
    expect(found.sandboxes).toHaveLength(2)
    expect(found.sandboxes[1]).toMatchObject({ name, failure_code: 'sandbox_lost', evidence: { details: { pod: {} } } })
  })
})

describe('while no worker runs', () => {
  let session: Session
  let name: string
  beforeAll(async () => {
    session = await open()
    name = await ready(session)
    await it.api.stopWorker()
  }, 60_000)

  test('warm_pool_empty_for_agent: nobody fills it', async () => {
    expect(has('warm_pool_empty_for_agent')(await diagnose(await open()))).toBe(true)
  })

  test('workflow_missing: it was terminated', async () => {
    const { temporal } = it.api.deps
    await temporal.client.workflow.getHandle(sessionWorkflowId(session.id)).terminate('for a test')
    const found = await later(31 * SECOND, () => diagnose(session))
    expect(issueOf(found, 'workflow_missing')?.message).toContain('TERMINATED')
  })

  test('sandbox_lost: the pod is another one, and nobody has said so yet', async () => {
    const lost = (
      await it.api.deps.sql.query<{ id: string; name: string }>(
        `select s.id, b.name from session s join sandbox b on b.id = s.sandbox_id
       where s.status = 'ready' and s.id not in ($1, $2) limit 1`,
        [session.id, unready.id],
      )
    )[0]!
    await it.kube.remove(inNamespace('pods', lost.name))
    const found = await eventually(() => diagnose(lost), has('sandbox_lost'))
    expect(issueOf(found, 'sandbox_lost')).toMatchObject({ severity: 'high' })
    expect(found.session.status).toBe('ready')
  })

  test('service_missing: the way in was removed', async () => {
    await it.kube.remove(inNamespace('services', name))
    const found = await diagnose(session)
    expect(found.service).toMatchObject({ exists: false, expected: true })
    expect(has('service_missing')(found)).toBe(true)
  })

  test('harness_unreachable: the pod runs, and nothing answers at its port any more', async () => {
    const found = await comes(session, has('harness_unreachable'))
    expect(found).toMatchObject({ pod: { phase: 'Running' }, harness_probe: { reachable: false } })
  })

  test('node_oversubscribed: pods that no scheduler has put there', async () => {
    const node = (await diagnose(session)).node.name!
    const resources = { requests: { cpu: '50', memory: '1e9' } }
    for (const pod of ['greedy-1', 'greedy-2'])
      await it.kube.create(`/api/v1/namespaces/${it.namespace}/pods`, {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: pod },
        spec: { nodeName: node, containers: [{ name: 'greedy', image: 'registry.invalid/greedy:1', resources }] },
      })
    const found = await comes(session, has('node_oversubscribed'))
    expect(found.node.allocated_pct?.cpu).toBeGreaterThan(150)
    expect(issueOf(found, 'node_oversubscribed')?.message).toContain('cpu')
  })

  test('an API server that is away costs its sections and nothing else, and what to do is said', async () => {
    await it.cluster.own.killApiServer()
    const startedAt = performance.now()
    const found = await diagnose(session)
    expect(performance.now() - startedAt).toBeLessThan(15_000)
    expect(found).toMatchObject({
      source: 'live',
      session: { status: 'ready' },
      pod: { exists: false, error: expect.any(String), state: 'claimed' },
      service: { exists: false, error: expect.any(String) },
    })
    expect(has('sandbox_lost')(found) || has('service_missing')(found)).toBe(false)
    const reach = expect.stringContaining('KUBECONFIG')
    // What was found before is good for some seconds.
    const health = await eventually(
      () => it.api.call<SandboxHealth>('GET', '/api/v1/health/k8s'),
      ({ body }) => body.cluster?.ok === false,
    )
    expect(health).toMatchObject({ status: 503, body: { ok: false, workers: expect.any(Number), error: reach } })
    const open = await it.api.call('GET', '/readyz', { headers: { authorization: '' } })
    expect(open).toMatchObject({ status: 200, body: { status: 'degraded', cluster: { ok: false } } })
    await it.cluster.own.restartApiServer()
    await eventually(
      () => it.api.call<SandboxHealth>('GET', '/api/v1/health/k8s'),
      ({ body }) => body.cluster?.ok === true,
    )
  }, 120_000)

  test('dead_node_assigned: a node that says nothing any more, and one that is gone', async () => {
    await it.cluster.own.killNodes()
    const dead = await comes(unready, has('dead_node_assigned'), NODES_DEAD_MS)
    expect(dead.node).toMatchObject({ exists: true, ready_status: 'Unknown' })
    await it.kube.remove(`/api/v1/nodes/${dead.node.name}`)
    const gone = await comes(unready, ({ node }) => !node.exists)
    expect(issueOf(gone, 'dead_node_assigned')?.message).toContain('is gone')
  }, 120_000)

  test('a cluster that knows no Sandboxes: the remedy is said, and the sessions are still told', async () => {
    const crds = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/sandboxes.agents.x-k8s.io'
    await it.kube.remove(crds)
    // Its objects go first.
    await eventually(async () => ((await getOrNull(it.kube, crds)) === null ? true : null), undefined, 60_000)
    const health = await eventually(
      () => it.api.call<SandboxHealth>('GET', '/api/v1/health/k8s'),
      ({ body }) => body.cluster?.ok === false,
      30_000,
    )
    expect(health).toMatchObject({ status: 503, body: { error: expect.stringContaining('Install agent-sandbox') } })
    expect((await diagnose(session)).session.status).toBe('ready')
  }, 120_000)
})
