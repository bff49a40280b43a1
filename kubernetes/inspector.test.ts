import { expect, test } from '@jest/globals'
import { scriptSandbox, SILENCE } from '../test/scripted-cluster.ts'
import { CORE, eachInspected, inspectorOf, SANDBOXES } from '../test/scripted-inspector.ts'

const own = eachInspected()

/** Changes a part of a scripted object: its innermost fields are replaced. */
const change = (path: string, over: object): void => {
  const merge = (a: object, b: object): object =>
    Object.fromEntries(
      [...new Set([...Object.keys(a), ...Object.keys(b)])].map((key) => {
        const [old, now] = [a[key as keyof typeof a] as unknown, b[key as keyof typeof b] as unknown]
        const both = [old, now].every((one) => typeof one === 'object' && one !== null && !Array.isArray(one))
        return [key, both ? merge(old as object, now as object) : (now ?? old)]
      }),
    )
  own.cluster.answers.set(path, merge(own.cluster.answers.get(path) as object, over))
}

test('a sandbox is told section by section, in the shapes of diagnose', async () => {
  scriptSandbox(own.cluster, 's1')
  const { details, ...seen } = await own.inspector.inspect('s1')
  expect(seen).toMatchObject({ exists: true, alive: true, state: 'Running', node: 'n1' })
  expect(seen.logTail).toEqual(['first line', 'last line'])
  expect(details?.['pod']).toMatchObject({
    exists: true,
    phase: 'Running',
    pod_ip: '10.0.0.7',
    pod_ips: ['10.0.0.7'],
    node_name: 'n1',
    age_ms: expect.any(Number),
    restart_count: 0,
    container_statuses: [{ name: 'harness', ready: true, restart_count: 0 }],
    conditions: [{ type: 'Ready', status: 'True' }],
  })
  expect(details?.['sandbox_cr']).toMatchObject({
    exists: true,
    conditions: [{ type: 'Ready', status: 'True', reason: 'DependenciesReady' }],
    pod_ips: ['10.0.0.7'],
    raw_status: { nodeName: 'n1' },
  })
  expect(details?.['service']).toMatchObject({
    exists: true,
    expected: true,
    cluster_ip: '10.1.0.9',
    node_port: 30_123,
    ports: [{ port: 4090, target_port: 4090, node_port: 30_123, protocol: 'TCP' }],
  })
  expect(details?.['node']).toEqual({
    exists: true,
    name: 'n1',
    ready_status: 'True',
    ready_reason: 'KubeletReady',
    internal_ip: '192.168.0.1',
    external_ip: '203.0.113.1',
    age_ms: expect.any(Number),
    created_at: expect.any(String),
    taints: [{ key: 'dedicated', value: 'agents', effect: 'NoSchedule' }],
    capacity: { cpu_millicores: 4_000, memory_bytes: 8 * 2 ** 30 },
    allocatable: { cpu_millicores: 3_920, memory_bytes: 7 * 2 ** 30 },
    allocated_requests: { cpu_millicores: 500, memory_bytes: 0 },
    allocated_pct: { cpu: 13, memory: 0 },
    pod_count: 2,
  })
  expect(details?.['image_cache']).toMatchObject({ daemonset_exists: false, ready_on_pod_node: true })
  expect(details?.['events']).toMatchObject([{ reason: 'Scheduled' }, { reason: 'Started', count: 1 }])
  expect(own.cluster.asked).toContain(
    'GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn1%2Cstatus.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed',
  )
  expect(own.cluster.asked.filter((what) => !what.startsWith('GET'))).toEqual([])
})

test('plain Pods reached at their own address have neither a Sandbox nor a Service, and none is asked for', async () => {
  scriptSandbox(own.cluster, 's1')
  const { details, exists } = await inspectorOf(own.cluster, { api: 'pod', access: 'pod-ip' }).inspect('s1')
  expect(exists).toBe(true)
  expect(details).toMatchObject({
    pod: { exists: true, phase: 'Running' },
    sandbox_cr: { exists: false, notes: expect.stringContaining('K8S_SANDBOX_API=pod') },
    service: { exists: false, expected: false },
  })
  expect(own.cluster.asked.filter((what) => /sandboxes\/s1|services/.test(what))).toEqual([])
  expect(own.cluster.asked.filter((what) => what === `GET ${CORE}/pods/s1`)).toHaveLength(1)
})

test('how each container fares is told, the ended ones with their reason', async () => {
  scriptSandbox(own.cluster, 's1')
  const terminated = { exitCode: 137, reason: 'OOMKilled', startedAt: '2026-01-01T00:00:00Z' }
  change(`${CORE}/pods/s1`, {
    status: {
      phase: 'Pending',
      initContainerStatuses: [{ name: 'first', ready: true, restartCount: 0, state: { terminated: { exitCode: 0 } } }],
      containerStatuses: [
        { name: 'harness', restartCount: 0, state: { waiting: { reason: 'ImagePullBackOff', message: 'not found' } } },
        {
          name: 'vault',
          restartCount: 2,
          state: { waiting: { reason: 'CrashLoopBackOff' } },
          lastState: { terminated },
        },
      ],
    },
  })
  const { details, alive } = await own.inspector.inspect('s1')
  expect(alive).toBe(false)
  expect(details?.['pod']).toMatchObject({
    restart_count: 2,
    container_statuses: [
      { name: 'first', init: true, ready: true, terminated_exit_code: 0 },
      { name: 'harness', ready: false, waiting_reason: 'ImagePullBackOff', waiting_message: 'not found' },
      { name: 'vault', ready: false, terminated_reason: 'OOMKilled', terminated_exit_code: 137 },
    ],
  })
})

test('what is not there is said not to be there', async () => {
  const { details, ...seen } = await own.inspector.inspect('none')
  expect(seen).toEqual({ exists: false, alive: false, state: 'gone' })
  expect(details).toMatchObject({
    pod: { exists: false },
    sandbox_cr: { exists: false },
    service: { exists: false, expected: true },
    node: { exists: false },
  })
  expect(JSON.stringify(details)).not.toContain('error')
})

test.each([
  ['service', `${CORE}/services/s1`],
  ['node', '/api/v1/nodes/n1'],
  ['pod', `${CORE}/pods/s1`],
  ['sandbox_cr', `${SANDBOXES}/s1`],
])('a refused %s is an error of that section, and the others are told', async (section, path) => {
  scriptSandbox(own.cluster, 's1')
  own.cluster.answers.set(path, { refuse: 403, message: `${section} is forbidden` })
  const { details } = await own.inspector.inspect('s1')
  expect(details?.[section]).toMatchObject({ exists: false, error: `${section} is forbidden` })
  const others = ['service', 'pod', 'sandbox_cr'].filter((other) => other !== section)
  for (const other of others) expect({ other, is: details?.[other] }).toMatchObject({ is: { exists: true } })
})

test('refused events, logs and pods of other namespaces are said where they would be', async () => {
  scriptSandbox(own.cluster, 's1')
  for (const path of [`${CORE}/events`, `${CORE}/pods/s1/log`, '/api/v1/pods'])
    own.cluster.answers.set(path, { refuse: 403, message: `no ${path}` })
  const { details, logTail } = await own.inspector.inspect('s1')
  expect(logTail).toBeUndefined()
  expect(details).toMatchObject({
    events: [],
    events_error: `no ${CORE}/events`,
    logs_error: `no ${CORE}/pods/s1/log`,
    node: { exists: true, capacity: { cpu_millicores: 4_000 }, allocated_error: 'no /api/v1/pods' },
  })
})

test('a kubelet that fails is not waited for: its log is an error, and the rest is there in time', async () => {
  scriptSandbox(own.cluster, 's1')
  own.cluster.answers.set(`${CORE}/pods/s1/log`, { refuse: 502, message: 'kubelet is away' })
  const startedAt = performance.now()
  const { details } = await own.inspector.inspect('s1')
  expect(performance.now() - startedAt).toBeLessThan(3_000)
  expect(details).toMatchObject({ pod: { exists: true }, logs_error: expect.stringContaining('kubelet is away') })
})

test('an API server that is silent where it hurts most is waited for, for less than 15 s, and the rest is told', async () => {
  scriptSandbox(own.cluster, 's1')
  for (const path of [`${SANDBOXES}/s1`, `${CORE}/pods/s1/log`, '/api/v1/nodes/n1'])
    own.cluster.answers.set(path, SILENCE)
  const startedAt = performance.now()
  const { details, alive, error, exists } = await own.inspector.inspect('s1')
  expect(performance.now() - startedAt).toBeLessThan(15_000)
  expect({ alive, exists }).toEqual({ alive: undefined, exists: true })
  expect(error).toContain('did not answer')
  expect(details).toMatchObject({
    pod: { exists: true, phase: 'Running' },
    sandbox_cr: { exists: false, error: expect.stringContaining('did not answer') },
    node: { exists: false, error: expect.stringContaining('did not answer') },
    logs_error: expect.stringContaining('did not answer'),
    service: { exists: true },
  })
}, 20_000)

const onNode = [
  ['by its name', 'registry.test/harness:1', ['registry.test/harness:1'], true],
  ['without host and tag', 'harness', ['docker.io/library/harness:latest'], true],
  ['without host', 'team/harness:2', ['docker.io/team/harness:2'], true],
  ['with a port and no tag', 'localhost:5000/harness', ['localhost:5000/harness:latest'], true],
  ['in another version', 'registry.test/harness:1', ['registry.test/harness:2'], false],
  ['of another host', 'registry.test/harness:1', ['docker.io/library/harness:1'], false],
  ['that reports none', 'registry.test/harness:1', [], undefined],
  [
    'that reports only the largest',
    'registry.test/harness:1',
    Array.from({ length: 50 }, (_, i) => `registry.test/other:${i}`),
    undefined,
  ],
] as const
test.each(onNode)('an image is looked for on its node: %s', async (_, image, names, ready) => {
  scriptSandbox(own.cluster, 's1')
  change(`${CORE}/pods/s1`, { spec: { containers: [{ name: 'harness', image }] } })
  change('/api/v1/nodes/n1', { status: { images: names.map((name) => ({ names: [name] })) } })
  const { details } = await own.inspector.inspect('s1')
  const cache = details?.['image_cache'] as { ready_on_pod_node?: boolean; notes?: string }
  expect(cache).toMatchObject({ daemonset_exists: false, image, notes: expect.any(String) })
  expect(cache.ready_on_pod_node).toBe(ready)
})

test('an image that has lost its names is no reason to fail', async () => {
  scriptSandbox(own.cluster, 's1')
  change('/api/v1/nodes/n1', { status: { images: [{ names: null }, { names: ['registry.test/harness:1'] }] } })
  const { details } = await own.inspector.inspect('s1')
  expect(details?.['image_cache']).toMatchObject({ ready_on_pod_node: true })
})

test('a section that cannot be understood says so, and the others are told', async () => {
  scriptSandbox(own.cluster, 's1')
  change('/api/v1/nodes/n1', { spec: { taints: 'none' }, status: { images: 'none' } })
  const { details, alive } = await own.inspector.inspect('s1')
  expect(alive).toBe(true)
  expect(details).toMatchObject({
    pod: { exists: true },
    node: { exists: false, error: expect.stringContaining('not understood') },
    image_cache: { daemonset_exists: false, error: expect.stringContaining('not understood') },
  })
})

test('a log is asked for with its bounds; what is not there is not found, what is refused says so', async () => {
  scriptSandbox(own.cluster, 's1')
  expect(await own.inspector.logs('s1', { tailLines: 7, sinceSeconds: 60 })).toEqual(['first line', 'last line'])
  expect(own.cluster.asked).toContain(`GET ${CORE}/pods/s1/log?container=harness&tailLines=7&sinceSeconds=60`)
  await expect(own.inspector.logs('none', { tailLines: 1 })).rejects.toMatchObject({ code: 'not_found' })
  own.cluster.answers.set(`${CORE}/pods/s1/log`, { refuse: 403, message: 'pods/log is forbidden' })
  await expect(own.inspector.logs('s1', { tailLines: 1 })).rejects.toMatchObject({
    code: 'upstream',
    message: expect.stringContaining('pods/log is forbidden'),
  })
})
