import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { freePort } from '../../tools/dev/ports.ts'
import { testTemporalAddress } from '../temporal.ts'
import { CHART } from './helm.ts'
import { eventually } from './namespace.ts'
import { environmentOf } from './processes.ts'
import {
  canInstall,
  type Component,
  installRelease,
  MASTER_KEY,
  type Release,
  RELEASE_TEST_MS,
  RESTRICTED,
} from './release.ts'
import { sharedKubeconfig } from './shared.ts'
import { createWorld, type World } from './world.ts'

/** A process of the release as its pod says, but for the ports, which are free ones of the loopback here, and where it finds its service account. */
type Running = { url: string; metricsUrl: string; log(): string; end(): Promise<number | null> }

const start = async (release: Release, world: World, component: Component): Promise<Running> => {
  const [pod] = await release.podsOf(component)
  if (pod === undefined) throw new Error(`no pod of ${component}`)
  const [, ...args] = pod.spec.containers[0]?.command ?? []
  const [port, metricsPort] = [await freePort(), await freePort()]
  const env = {
    PATH: process.env['PATH'],
    ...(await environmentOf(world.kube, pod)),
    HOST: '127.0.0.1',
    PORT: String(port),
    METRICS_PORT: String(metricsPort),
    WORKER_METRICS_PORT: String(metricsPort),
    KUBECONFIG: await release.kubeconfigOf(component),
  }
  const child = spawn(process.execPath, args, { cwd: path.join(CHART, '../..'), env })
  const lines: string[] = []
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => lines.push(String(chunk)))
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  return {
    url: `http://127.0.0.1:${port}`,
    metricsUrl: `http://127.0.0.1:${metricsPort}`,
    log: () => lines.join(''),
    end: () => {
      child.kill('SIGTERM')
      return ended
    },
  }
}

type Reply = { status: number; body: Record<string, unknown> }

const ask = async (url: string, method = 'GET', body?: object): Promise<Reply> => {
  const reply = await fetch(url, {
    method,
    headers: { authorization: `Bearer ${MASTER_KEY}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  return { status: reply.status, body: (await reply.json()) as Record<string, unknown> }
}

/** Of processes that bundle their workflows first, beside whatever else runs. */
const START_MS = 120_000

const becomes = (url: string, isSo: (reply: Reply) => boolean): Promise<Reply> =>
  eventually(() => ask(url).catch(() => null), isSo, START_MS)

const where = (await canInstall()) ? describe : describe.skip
where.each(['sandbox', 'pod'] as const)('the processes of a release with sandbox.api=%s', (api) => {
  let world: World
  let release: Release
  const running: Partial<Record<Component, Running>> = {}
  const part = (component: Component): Running => {
    const found = running[component]
    if (found === undefined) throw new Error(`${component} has not started`)
    return found
  }

  beforeAll(async () => {
    world = await createWorld({ kubeconfig: sharedKubeconfig(), api, labels: RESTRICTED })
    release = await installRelease(world, {
      TEMPORAL_ADDRESS: testTemporalAddress(),
      TEMPORAL_NAMESPACE: `chart-${randomBytes(4).toString('hex')}`,
      WARM_POOL_SIZE: 1,
    })
    for (const component of ['api', 'worker'] as const) running[component] = await start(release, world, component)
  }, RELEASE_TEST_MS)
  afterAll(async () => {
    await Promise.all(Object.values(running).map((one) => one.end()))
    await release?.[Symbol.asyncDispose]()
    await world?.[Symbol.asyncDispose]()
  })

  test(
    'are ready by the probes of their pods, and lack no right',
    async () => {
      const isReady = ({ status }: Reply): boolean => status === 200
      expect(await becomes(`${part('worker').metricsUrl}/readyz`, isReady)).toMatchObject({ body: { problems: [] } })
      expect(await becomes(`${part('api').url}/readyz`, ({ body }) => body['status'] === 'ready')).toMatchObject({ status: 200 }) // prettier-ignore
      const health = await becomes(`${part('api').url}/api/v1/health/k8s`, isReady)
      expect(health.body).toMatchObject({ ok: true, cluster: { ok: true, problems: [], warnings: [] } })
      expect(part('worker').log()).not.toMatch(/cluster_problem|cluster_warning|forbidden/)
    },
    RELEASE_TEST_MS,
  )

  test(
    'start a session, answer in it, explain it and remove it',
    async () => {
      const root = `${part('api').url}/api/v1/managed_agents`
      const agent = await ask(`${root}/agents`, 'POST', { name: 'first', model: 'any' })
      const made = await ask(`${root}/agents/${String(agent.body['id'])}/session`, 'POST', { title: 'hello' })
      const session = `${root}/sessions/${String(made.body['id'])}`
      await becomes(session, ({ body }) => body['status'] === 'ready')
      expect(await ask(`${session}/message`, 'POST', { text: 'hello' })).toMatchObject({
        status: 200,
        body: { parts: [{ type: 'text', text: 'hello' }] },
      })
      const { body } = await ask(`${session}/diagnose`)
      expect(body).toMatchObject({ source: 'live', pod: { exists: true, phase: 'Running' }, node: { exists: true } })
      expect(JSON.stringify(body)).not.toMatch(/forbidden/i)
      const { task_arn: name } = body['session'] as { task_arn: string }
      await eventually(async () => {
        const pod = await world.find<{ metadata: { labels: Record<string, string> } }>('pod', name)
        return pod?.metadata.labels['lap/state'] === 'claimed'
      }, Boolean)
      expect((await ask(session, 'DELETE')).status).toBe(200)
      await eventually(async () => (await world.find('object', name)) === null, Boolean)
    },
    RELEASE_TEST_MS,
  )

  test('end in order when they are told to', async () => {
    expect(await Promise.all([part('api').end(), part('worker').end()])).toEqual([0, 0])
    expect(part('worker').log()).not.toMatch(/forbidden/i)
  })
})
