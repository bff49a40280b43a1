import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, symlink } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { parse } from 'yaml'
import { loadConfig } from '../../config/config.ts'
import { createKubeClient } from '../../kubernetes/client.ts'
import { loadCredentials } from '../../kubernetes/credentials.ts'
import { objectOf } from '../../kubernetes/manifest.ts'
import { preflight } from '../../kubernetes/preflight.ts'
import { binariesDir, buildHelm } from '../../tools/cluster/binaries.ts'
import type { Kube } from '../../tools/cluster/kube.ts'
import { composeOf, GIVEN, overlaid, root, settingsIn } from '../deploy/compose.ts'
import { connectShared, sharedKubeconfig } from './shared.ts'
import { specWith } from './world.ts'

const run = promisify(execFile)
/** Of this run: the cluster is shared. */
const namespace = `lap-outside-${Date.now().toString(36)}`

let dir: string
let kube: Kube
/** The commands of the page, up to the start of the platform, which needs Docker. */
let steps: string

const bash = async (script: string): Promise<string> => {
  const env = { PATH: `${dir}/bin:${process.env['PATH']}`, HOME: dir, KUBECONFIG: sharedKubeconfig().admin }
  const { stdout } = await run('bash', ['-euo', 'pipefail', '-c', script], { cwd: root, env, timeout: 50_000 })
  return stdout
}

beforeAll(async () => {
  kube = await connectShared('admin')
  dir = await mkdtemp(path.join(os.tmpdir(), 'lap-outside-'))
  await Promise.all([mkdir(path.join(dir, 'bin')), mkdir(path.join(dir, '.kube'))])
  await symlink(path.join(await binariesDir(), 'kubectl'), path.join(dir, 'bin/kubectl'))
  await symlink(await buildHelm(() => undefined), path.join(dir, 'bin/helm'))
  const page = await readFile(path.join(root, 'docs/kubernetes.md'), 'utf8')
  const [section = ''] = page.split('\n### The platform outside, sandboxes inside\n')[1]?.split('\n## ') ?? []
  const blocks = [...section.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block = '']) => block)
  steps = blocks
    .join('')
    .replace(/^docker compose .*$/m, '')
    .replaceAll('lap-sandboxes', namespace)
})
afterAll(async () => {
  const rbac = '/apis/rbac.authorization.k8s.io/v1'
  const everywhere = ['clusterroles', 'clusterrolebindings'].flatMap((kind) =>
    ['api', 'worker'].map((of) => `${rbac}/${kind}/${namespace}-lap-${of}`),
  )
  const priority = `/apis/scheduling.k8s.io/v1/priorityclasses/${namespace}-lap-sandbox`
  for (const made of [...everywhere, priority, `/api/v1/namespaces/${namespace}`])
    await kube.remove(made).catch(() => undefined)
  await kube[Symbol.asyncDispose]()
  await rm(dir, { recursive: true, force: true })
})

type Selecting = { items: { spec: { selector?: object; podSelector?: { matchLabels?: object } } }[] }

test('who follows the steps for a platform outside has rights, settings, budget and policies that fit together', async () => {
  const exported = await bash(`${steps}\nenv`)
  const given = Object.fromEntries(exported.split('\n').map((line) => line.split(/=(.*)/s, 2) as [string, string]))
  const compose = overlaid(composeOf('docker-compose.yml'), composeOf('docker-compose.kubernetes.yml'))
  const settings = settingsIn(compose, 'worker', { ...GIVEN, ...given })
  const kubeconfig = given['KUBECONFIG_FILE'] ?? ''
  const { k8s } = loadConfig({ ...settings, KUBECONFIG: kubeconfig })

  // The account may do all that the worker does.
  await using client = createKubeClient(loadCredentials(kubeconfig))
  const { api } = k8s
  const found = await preflight({ client, api, namespace: k8s.namespace, access: 'nodeport' })
  expect(found).toEqual({ unreachable: false, problems: [], warnings: [], mayReadNodes: true })

  // A pod with these settings is admitted, so its account and its class are there.
  const pod = objectOf(specWith(), { ...k8s, api: 'pod', installation: 'this-one' })
  const made = await kube.create<{ spec: object; metadata: { labels: object } }>(
    `/api/v1/namespaces/${namespace}/pods?dryRun=All`,
    pod,
  )
  expect(made.spec).toMatchObject({ priority: 1_000, serviceAccountName: 'lap-sandbox' })

  // Budget and policies are for such pods.
  const labels = { 'app.kubernetes.io/managed-by': 'lap', 'lap/instance': k8s.instance }
  expect(made.metadata.labels).toMatchObject(labels)
  const budgets = await kube.get<Selecting>(`/apis/policy/v1/namespaces/${namespace}/poddisruptionbudgets`)
  const claimed = { matchLabels: { ...labels, 'lap/state': 'claimed' } }
  expect(budgets.items.map(({ spec }) => spec.selector)).toEqual([claimed])
  const policies = await kube.get<Selecting>(`/apis/networking.k8s.io/v1/namespaces/${namespace}/networkpolicies`)
  const selected = policies.items.map(({ spec }) => JSON.stringify(spec.podSelector?.matchLabels))
  expect(selected.filter((one) => one === JSON.stringify(labels))).toHaveLength(2)
})

test('the settings of the steps are those that the chart gives a platform inside', async () => {
  const command = /^helm template .*?(?=\n {2}-s )/ms.exec(steps)?.[0] ?? ''
  const { data } = parse(await bash(`${command}\n -s templates/settings.yaml`)) as { data: Record<string, string> }
  const exported = await bash(`${steps.slice(steps.lastIndexOf('export K8S_NAMESPACE'))}\nenv`)
  const own = Object.fromEntries([...exported.matchAll(/^(K8S_\w+)=(.*)$/gm)].map(([, name, value]) => [name, value]))
  expect(Object.keys(own)).toHaveLength(5)
  expect(data).toMatchObject({ ...own, K8S_HARNESS_IMAGE: expect.any(String) })
})
