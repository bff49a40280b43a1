import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { loadConfig } from '../config/config.ts'
import { createLogger } from '../telemetry/log.ts'
import { scriptedKubeconfig, startScriptedCluster } from '../test/scripted-cluster.ts'
import type { ScriptedCluster } from '../test/scripted-cluster.ts'
import { openSandboxes } from './sandboxes.ts'

const TOKEN = 'sk-a-token-of-the-cluster'
const PASSWORD = 'a-password-of-the-cluster'

type Line = { level: string; event?: string; msg: string; detail?: string; remedy?: string }

let cluster: ScriptedCluster
let dir: string
let lines: string[]
beforeEach(async () => {
  cluster = await startScriptedCluster()
  lines = []
  dir = await mkdtemp(path.join(os.tmpdir(), 'lap-sandboxes-'))
  const server = cluster.client.server.replace('://', `://somebody:${PASSWORD}@`)
  process.env['KUBECONFIG'] = path.join(dir, 'config')
  await writeFile(process.env['KUBECONFIG'], scriptedKubeconfig(server, { token: TOKEN }))
})
afterEach(async () => {
  delete process.env['KUBECONFIG']
  await cluster[Symbol.asyncDispose]()
  await rm(dir, { recursive: true, force: true })
})

const logged = (): Line[] => lines.map((line) => JSON.parse(line) as Line)

/** Opens them, until a line says this. */
const openUntil = async (isSaid: (line: Line) => boolean): Promise<Line> => {
  const config = loadConfig({
    DATABASE_URL: 'postgresql://127.0.0.1:9/none',
    MASTER_KEY: 'a master key for tests',
    LITELLM_API_BASE: 'http://127.0.0.1:9',
    LITELLM_API_KEY: 'none',
    PREINSTALLED_GITHUB_REPO: 'https://example.com/repo.git',
    SANDBOX_DRIVER: 'kubernetes',
    K8S_NAMESPACE: 'sandboxes',
    K8S_ACCESS: 'nodeport',
  })
  const ending = new AbortController()
  const found = new Promise<Line>((resolve) => {
    const write = (line: string): void => {
      lines.push(line)
      const last = logged().at(-1)
      if (last !== undefined && isSaid(last)) resolve(last)
    }
    const log = createLogger({ level: 'info', name: 'test', destination: { write } })
    const installation = () => Promise.resolve('this-one')
    const opened = openSandboxes(config, { log, signal: ending.signal, onProblems: () => undefined, installation })
    opened.then((sandboxes) => sandboxes[Symbol.asyncDispose]()).catch(() => undefined)
  })
  try {
    return await found
  } finally {
    ending.abort()
  }
}

test('why a cluster cannot be used is logged with what was seen and the remedy, and without a credential', async () => {
  cluster.answers.set('/version', { refuse: 401, message: `the token ${TOKEN} has expired` })
  const line = await openUntil(({ event }) => event === 'cluster_problem')
  expect(line).toMatchObject({
    level: 'error',
    msg: expect.stringContaining('credentials'),
    detail: `${cluster.client.server.replace('://', '://[hidden]@')}: the token [hidden] has expired`,
    remedy: expect.stringContaining('KUBECONFIG'),
  })
  expect(lines.join('')).not.toMatch(`${TOKEN}|${PASSWORD}`)
})

test('what a cluster lacks is logged with its remedy, once', async () => {
  cluster.answers.delete('/apis/agents.x-k8s.io/v1beta1')
  cluster.denied.add('get pods/log')
  await openUntil(({ event }) => event === 'cluster_warning')
  expect(logged()).toMatchObject([
    { event: 'cluster_problem', remedy: expect.stringContaining('K8S_SANDBOX_API=pod') },
    { event: 'cluster_warning', msg: expect.stringContaining('get pods/log'), remedy: expect.any(String) },
  ])
})

test('an installation that says the same of itself in its labels is logged, with the setting to change', async () => {
  const labels = { 'lap/instance': 'lap', 'lap/installation': 'another' }
  const items = [{ metadata: { name: 'lap-1', labels } }]
  cluster.answers.set('/apis/agents.x-k8s.io/v1beta1/namespaces/sandboxes/sandboxes', { metadata: {}, items })
  expect(await openUntil(({ event }) => event === 'cluster_neighbour')).toMatchObject({
    level: 'error',
    msg: expect.stringContaining('K8S_INSTANCE=lap'),
    detail: expect.stringContaining('another'),
    remedy: expect.stringContaining('K8S_INSTANCE'),
  })
})

test('what an API server refuses before it is ready is not missing', async () => {
  cluster.denied.add('create sandboxes').add('watch nodes *')
  cluster.answers.set('/readyz', () => {
    const looks = cluster.asked.filter((asked) => asked === 'GET /version').length
    if (looks < 3) return { refuse: 500, message: 'poststarthook/rbac/bootstrap-roles failed' }
    cluster.denied.clear()
    return 'ok'
  })
  const hasAll = 'the cluster has all that sandboxes need'
  const line = await openUntil(({ event, msg }) => event === 'cluster_warning' || msg === hasAll)
  expect(line).toMatchObject({ level: 'info', msg: hasAll })
})
