import { readFileSync } from 'node:fs'
import path from 'node:path'
import { expect, test } from '@jest/globals'
import { parse, parseAllDocuments } from 'yaml'
import { composeOf } from '../deploy/compose.ts'
import { dryRun } from './dry-run.ts'
import { CHART, objectOf, objectsOf, openHelm, type Rendered, settingsOf, type Values } from './helm.ts'
import { makeNamespace } from './namespace.ts'
import { connectShared } from './shared.ts'

const read = (file: string): string => readFileSync(path.join(CHART, '../kind', file), 'utf8')
const dependencies = parseAllDocuments(read('dependencies.yaml'), { merge: true }).map(
  (document) => document.toJS() as Rendered,
)
const values = parse(read('values.yaml')) as Values & { settings: Values }
const page = readFileSync(path.join(CHART, '../../docs/kubernetes.md'), 'utf8')

type Container = { image: string; ports: { containerPort: number }[] }
const containersOf = ({ spec }: Rendered): Container[] =>
  (spec as { template: { spec: { containers: Container[] } } }).template.spec.containers

test('the API server takes what the first try needs, and the chart with its values', async () => {
  await using kube = await connectShared('admin')
  using helm = await openHelm()
  const namespace = await makeNamespace(kube)
  // With the gateway inside the cluster, as it may be for a try.
  const settings = { ...values.settings, LITELLM_API_BASE: 'http://litellm:4000' }
  const objects = await helm.template({ ...values, settings }, { namespace })
  for (const object of objects) await dryRun(kube, object)
  for (const object of dependencies) await dryRun(kube, { ...object, metadata: { ...object.metadata, namespace } })
  await kube.remove(`/api/v1/namespaces/${namespace}`)

  const { host } = new URL(/^DATABASE_URL=(.*)$/m.exec(page)?.[1] ?? '')
  const shown = settingsOf(objects)
  for (const address of [host, shown['TEMPORAL_ADDRESS'] ?? '']) {
    const [name = '', port] = address.split(':')
    const { spec = {} } = objectOf(dependencies, 'Service', name)
    const ports = (spec['ports'] as { port: number }[]).map((one) => one.port)
    expect(ports).toContain(Number(port))
    const [container] = containersOf(objectOf(dependencies, 'Deployment', name))
    expect(container?.ports.map(({ containerPort }) => containerPort)).toEqual(ports)
  }
  expect(page).toContain(`docker build -t ${shown['K8S_HARNESS_IMAGE']} -f harness/opencode/Dockerfile .`)
  const [platform] = containersOf(objectOf(objects, 'Deployment', '-api'))
  expect(page).toContain(`kind load docker-image ${platform?.image} ${shown['K8S_HARNESS_IMAGE']} --name lap`)
  expect(page).toContain(`create secret generic ${String(values['existingSecret'])} `)
})

test('its images are those of docker-compose.yml', () => {
  const { services } = composeOf('docker-compose.yml')
  const known = Object.values(services).map(({ image }) => image)
  for (const deployment of objectsOf(dependencies, 'Deployment'))
    for (const { image } of containersOf(deployment)) expect(known).toContain(image)
})
