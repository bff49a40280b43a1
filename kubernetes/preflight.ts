import pLimit from 'p-limit'
import { errorText } from '../domain/errors.ts'
import type { Problem } from '../sandbox/inspector.ts'
import type { KubeClient } from './client.ts'
import type { Access } from './cluster.ts'
import { hasStatus, isKubeError, isLoginRefused, LOGIN_REFUSED } from './errors.ts'
import { SANDBOX_API_VERSION } from './objects.ts'
import type { SandboxApi } from './objects.ts'

export type Preflight = {
  /** The API server did not answer, so nothing else is known. */
  unreachable: boolean
  /** Without these no sandbox can be made. */
  problems: Problem[]
  /** Without these something is seen later, or not shown. */
  warnings: Problem[]
  mayReadNodes: boolean
}

export type PreflightOptions = {
  client: KubeClient
  api: SandboxApi
  namespace: string
  access: Access['by']
  /** Those of the driver, unless said. */
  rights?: Right[]
  /** Of each request; without it the client's own. */
  timeoutMs?: number
}

export type Right = {
  group: string
  resource: string
  subresource?: string
  verb: string
  optional?: true
  /** In all namespaces, or of a kind that belongs to none. */
  everywhere?: true
}

const rights = (group: string, resource: string, verbs: string[], more: Partial<Right> = {}): Right[] =>
  verbs.map((verb) => ({ group, resource, verb, ...more }))

/** Every right that the driver uses, and no other; the chart grants these. */
export const rightsFor = (api: SandboxApi, access: Access['by']): Right[] => [
  ...(api === 'sandbox'
    ? rights('agents.x-k8s.io', 'sandboxes', ['create', 'get', 'list', 'watch', 'patch', 'delete'])
    : []),
  ...rights('', 'pods', ['get', 'list', 'watch', 'patch', 'delete', ...(api === 'pod' ? ['create'] : [])]),
  ...(access === 'nodeport' ? rights('', 'services', ['create', 'get', 'list', 'watch', 'delete']) : []),
  // Without them sandboxes of agents with egress rules are not made.
  ...rights('networking.k8s.io', 'networkpolicies', ['create', 'get', 'list', 'patch', 'delete'], { optional: true }),
  ...rights('', 'pods', ['get'], { subresource: 'log', optional: true }),
  ...rights('', 'events', ['list'], { optional: true }),
  ...rights('', 'nodes', ['get', 'list', 'watch'], { optional: true, everywhere: true }),
]

/** Every right that the inspector uses: it changes nothing. */
export const inspectorRightsFor = (api: SandboxApi, access: Access['by']): Right[] => [
  ...(api === 'sandbox' ? rights('agents.x-k8s.io', 'sandboxes', ['get', 'list']) : []),
  ...rights('', 'pods', api === 'pod' ? ['get', 'list'] : ['get']),
  ...(access === 'nodeport' ? rights('', 'services', ['get']) : []),
  ...rights('networking.k8s.io', 'networkpolicies', ['get'], { optional: true }),
  ...rights('', 'pods', ['get'], { subresource: 'log', optional: true }),
  ...rights('', 'events', ['list'], { optional: true }),
  ...rights('', 'nodes', ['get'], { optional: true, everywhere: true }),
  // How much of a node is promised: by the pods of all namespaces.
  ...rights('', 'pods', ['list'], { optional: true, everywhere: true }),
]

const nameOf = ({ group, resource, subresource, verb, everywhere }: Right): string => {
  const name = `${resource}${subresource === undefined ? '' : `/${subresource}`}${group === '' ? '' : `.${group}`}`
  return `${verb} ${name}${everywhere === true && resource !== 'nodes' ? ' in all namespaces' : ''}`
}

type Asked = Pick<PreflightOptions, 'client' | 'namespace' | 'timeoutMs'>

const limitOf = ({ timeoutMs }: Asked): { timeoutMs?: number } => (timeoutMs === undefined ? {} : { timeoutMs })

const isAllowed = async (asked: Asked, right: Right): Promise<boolean> => {
  const { group, resource, subresource, verb, everywhere } = right
  const scope = everywhere === true ? {} : { namespace: asked.namespace }
  const reply = await asked.client.json<{ status?: { allowed?: boolean } }>({
    ...limitOf(asked),
    method: 'POST',
    path: '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews',
    body: {
      apiVersion: 'authorization.k8s.io/v1',
      kind: 'SelfSubjectAccessReview',
      spec: {
        resourceAttributes: { group, resource, verb, ...scope, ...(subresource === undefined ? {} : { subresource }) },
      },
    },
  })
  return reply.status?.allowed === true
}

/** Why nothing is known of the cluster. */
export const reachProblem = (server: string, error: unknown): Problem => {
  if (isLoginRefused(error)) return { ...LOGIN_REFUSED, detail: `${server}: ${errorText(error.cause)}` }
  return {
    what: 'The Kubernetes API server cannot be reached.',
    detail: `${server}: ${errorText(error)}`,
    remedy:
      'Check the current context of the kubeconfig (KUBECONFIG, ~/.kube/config), and that the server runs and its address is reachable from here.',
  }
}

export const unknownKind: Problem = {
  what: `The cluster does not know Sandbox objects (${SANDBOX_API_VERSION}).`,
  remedy:
    'Install agent-sandbox 1.0 or newer (kubectl apply -f the sandbox.yaml of its release), or set K8S_SANDBOX_API=pod to make plain Pods instead.',
}

const sandboxKindProblem = async (asked: Asked): Promise<Problem | null> => {
  try {
    const call = { ...limitOf(asked), path: `/apis/${SANDBOX_API_VERSION}` }
    const { resources } = await asked.client.json<{ resources: { name: string }[] }>(call)
    if (resources.some(({ name }) => name === 'sandboxes')) return null
  } catch (error) {
    if (!hasStatus(error, 404)) throw error
  }
  return unknownKind
}

const rightsProblem = (missing: Right[], namespace: string): Problem => ({
  what: `Rights are missing in namespace ${namespace}: ${missing.map(nameOf).join(', ')}.`,
  remedy: `Bind this user or service account to a Role in ${namespace} (for nodes, and what is in all namespaces: a ClusterRole) with these verbs; the Helm chart makes it (rbac.create=true).`,
})

/** Looks whether the driver, or whoever needs the rights given, can work here, in one go, and says all that is missing. Never throws: what cannot be found out is a problem, too. */
export const preflight = async (options: PreflightOptions): Promise<Preflight> => {
  const { client, api, namespace, access } = options
  const result: Preflight = { unreachable: false, problems: [], warnings: [], mayReadNodes: false }
  try {
    await client.json({ ...limitOf(options), path: '/version' })
    const kind = api === 'sandbox' ? await sandboxKindProblem(options) : null
    if (kind !== null) result.problems.push(kind)
    const limit = pLimit(8)
    const checked = await Promise.all(
      (options.rights ?? rightsFor(api, access)).map((right) =>
        limit(async () => ({ right, allowed: await isAllowed(options, right) })),
      ),
    )
    const missing = checked.filter(({ allowed }) => !allowed).map(({ right }) => right)
    const needed = missing.filter(({ optional }) => optional !== true)
    const wanted = missing.filter(({ optional }) => optional === true)
    if (needed.length > 0) result.problems.push(rightsProblem(needed, namespace))
    if (wanted.length > 0) result.warnings.push(rightsProblem(wanted, namespace))
    result.mayReadNodes = !missing.some(({ resource }) => resource === 'nodes')
  } catch (error) {
    if (isKubeError(error) && error.status === 403)
      result.problems.push({
        what: 'The Kubernetes API server does not tell the platform what it may do.',
        detail: errorText(error),
        remedy: 'Let this user ask for its own rights (role system:basic-user).',
      })
    else {
      result.unreachable = true
      result.problems.push(reachProblem(client.server, error))
    }
  }
  return result
}
