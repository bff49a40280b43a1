import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parse } from 'yaml'
import { isStatus, type Kube } from '../../tools/cluster/kube.ts'

const CRDS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'
const NAME = 'sandboxes.agents.x-k8s.io'
const BESIDE = fileURLToPath(new URL('../../../shared/cluster/sandboxes.crd.yaml', import.meta.url))
const ESTABLISHED_TIMEOUT_MS = 10_000

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

/**
 * Sees to it that the cluster knows Sandboxes: it does already, or their definition is in the file of AGENT_SANDBOX_CRD, or beside the repository.
 * @throws Error that says where the definition is to be had
 */
export const ensureSandboxesCrd = async (kube: Kube): Promise<void> => {
  if (await isThere(kube)) return
  const file = process.env['AGENT_SANDBOX_CRD'] || BESIDE
  if (!existsSync(file))
    throw new Error(
      `The cluster has no ${NAME}, and ${path.resolve(file)} is not there.\n` +
        'Install agent-sandbox (https://github.com/kubernetes-sigs/agent-sandbox), or name the file of the definition: AGENT_SANDBOX_CRD=…',
    )
  await kube.create(CRDS, parse(await readFile(file, 'utf8')) as object)
  const deadline = Date.now() + ESTABLISHED_TIMEOUT_MS
  while (!isEstablished(await kube.get<Crd>(`${CRDS}/${NAME}`))) {
    if (Date.now() > deadline) throw new Error(`${NAME} is not established after ${ESTABLISHED_TIMEOUT_MS / 1_000} s`)
    await sleep(50)
  }
}
