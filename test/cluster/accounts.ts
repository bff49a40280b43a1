import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import type { Right } from '../../kubernetes/preflight.ts'
import { type Access, kubeconfigText } from '../../tools/cluster/kube.ts'
import type { Kube } from '../../tools/cluster/kube.ts'

export type AccountOptions = {
  kube: Kube
  /** Of the server that it is to talk to. */
  access: Access
  namespace: string
  rights: Right[]
  /** Where its kubeconfig goes. */
  dir: string
}

const RBAC = '/apis/rbac.authorization.k8s.io/v1'

const rulesOf = (rights: Right[]): object[] =>
  rights.map(({ group, resource, subresource, verb }) => ({
    apiGroups: [group],
    resources: [subresource === undefined ? resource : `${resource}/${subresource}`],
    verbs: [verb],
  }))

/** A service account that may do exactly this. @returns the file of its kubeconfig */
export const createAccount = async ({ kube, access, namespace, rights, dir }: AccountOptions): Promise<string> => {
  const name = `account-${Math.random().toString(36).slice(2, 10)}`
  const everywhere = `${namespace}-${name}`
  const subjects = [{ kind: 'ServiceAccount', name, namespace }]
  const apiGroup = 'rbac.authorization.k8s.io'
  const within = `${RBAC}/namespaces/${namespace}`
  const wide = rights.filter((right) => right.everywhere === true)
  const narrow = rights.filter((right) => right.everywhere !== true)
  await kube.create(`/api/v1/namespaces/${namespace}/serviceaccounts`, { metadata: { name } })
  await kube.create(`${within}/roles`, { metadata: { name }, rules: rulesOf(narrow) })
  await kube.create(`${within}/rolebindings`, {
    metadata: { name },
    subjects,
    roleRef: { apiGroup, kind: 'Role', name },
  })
  await kube.create(`${RBAC}/clusterroles`, { metadata: { name: everywhere }, rules: rulesOf(wide) })
  const roleRef = { apiGroup, kind: 'ClusterRole', name: everywhere }
  await kube.create(`${RBAC}/clusterrolebindings`, { metadata: { name: everywhere }, subjects, roleRef })
  const request = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: {} }
  const tokens = `/api/v1/namespaces/${namespace}/serviceaccounts/${name}/token`
  const { status } = await kube.create<{ status: { token: string } }>(tokens, request)
  const file = path.join(dir, `${name}.kubeconfig`)
  const { server, ca = '' } = access
  await writeFile(file, kubeconfigText({ server, ca, token: status.token }), { mode: 0o600 })
  return file
}
