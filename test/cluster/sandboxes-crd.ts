import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parse } from 'yaml'
import { isStatus, type Kube } from '../../tools/cluster/kube.ts'
import { eventually, getOrNull } from './namespace.ts'
import { SANDBOX_DEFINITION } from './sandbox-definition.ts'

const CRDS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
const NAME = 'sandboxes.agents.x-k8s.io'
const BESIDE = fileURLToPath(new URL('../../../shared/cluster/sandboxes.crd.yaml', import.meta.url))
const ESTABLISHED_TIMEOUT_MS = 10_000
const COLLECTED_TIMEOUT_MS = 90_000

type Definition = { metadata: { name: string; labels?: object } }
type Crd = { status?: { conditions?: { type: string; status: string }[] } }

const isThere = async (kube: Kube): Promise<boolean> => {
  try {
    await kube.get(`${CRDS}/${NAME}`)
    return true
  } catch (error) {
    if (isStatus(error, 404)) return false
    throw error
  }
}

const isEstablished = ({ status }: Crd): boolean =>
  status?.conditions?.some((condition) => condition.type === 'Established' && condition.status === 'True') ?? false

/** On a definition that came from here: there is no controller for it but the stand-in. */
const OURS = { 'lap.invalid/stand-in': 'true' }

/** Whether the controller of agent-sandbox itself is to be expected, because somebody has installed its definition. */
export const hasOwnController = async (kube: Kube): Promise<boolean> => {
  const { metadata } = await kube.get<{ metadata: { labels?: Record<string, string> } }>(`${CRDS}/${NAME}`)
  return Object.keys(OURS).every((key) => metadata.labels?.[key] === undefined)
}

/** The one of AGENT_SANDBOX_CRD; else the one that may lie beside the repository; else ours. */
const readDefinition = async (): Promise<Definition> => {
  const named = process.env['AGENT_SANDBOX_CRD']
  const file = named || BESIDE
  if (existsSync(file)) return parse(await readFile(file, 'utf8')) as Definition
  if (named) throw new Error(`AGENT_SANDBOX_CRD=${path.resolve(named)} is not there`)
  console.info('Sandboxes are defined as in test/cluster/sandbox-definition.ts; AGENT_SANDBOX_CRD names another file')
  return SANDBOX_DEFINITION
}

/**
 * Waits until what a Sandbox owns goes with it: a garbage collector that runs already looks for new kinds only every 30 s. Tried with an object that has no other
 * meaning.
 */
export const awaitCollection = async (kube: Kube): Promise<void> => {
  const name = `lap-owner-${randomBytes(4).toString('hex')}`
  const sandboxes = '/apis/agents.x-k8s.io/v1beta1/namespaces/default/sandboxes'
  const maps = '/api/v1/namespaces/default/configmaps'
  const spec = { podTemplate: { spec: { containers: [{ name: 'none', image: 'registry.invalid/none:1' }] } } }
  const apiVersion = 'agents.x-k8s.io/v1beta1'
  const owner = { apiVersion, kind: 'Sandbox', metadata: { name }, spec: { ...spec, operatingMode: 'Suspended' } }
  const { metadata } = await kube.create<{ metadata: { uid: string } }>(sandboxes, owner)
  const ownerReferences = [{ apiVersion, kind: 'Sandbox', name, uid: metadata.uid }]
  await kube.create(maps, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, ownerReferences } })
  await kube.remove(`${sandboxes}/${name}`)
  await eventually(async () => (await getOrNull(kube, `${maps}/${name}`)) === null, Boolean, COLLECTED_TIMEOUT_MS)
}

/** Sees to it that the cluster knows Sandboxes, and waits until it does. @returns whether they are new to it */
export const ensureSandboxesCrd = async (kube: Kube): Promise<boolean> => {
  if (await isThere(kube)) return false
  const definition = await readDefinition()
  const metadata = { ...definition.metadata, labels: { ...definition.metadata.labels, ...OURS } }
  await kube.create(CRDS, { ...definition, metadata })
  const deadline = Date.now() + ESTABLISHED_TIMEOUT_MS
  while (!isEstablished(await kube.get<Crd>(`${CRDS}/${NAME}`))) {
    if (Date.now() > deadline) throw new Error(`${NAME} is not established after ${ESTABLISHED_TIMEOUT_MS / 1_000} s`)
    await sleep(50)
  }
  return true
}
