import pLimit from 'p-limit'
import { errorText } from '../domain/errors.ts'
import type { KubeClient } from './client.ts'
import type { Access } from './cluster.ts'
import { hasStatus, isKubeError } from './errors.ts'
import { SANDBOX_API_VERSION } from './objects.ts'
import type { SandboxApi } from './objects.ts'

/** What is missing, and exactly what to do about it. */
export type Problem = { what: string; remedy: string }

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
}

export type Right = { group: string; resource: string; subresource?: string; verb: string; optional?: true }

const rights = (group: string, resource: string, verbs: string[], more: Partial<Right> = {}): Right[] =>
  verbs.map((verb) => ({ group, resource, verb, ...more }))

/** Every right that the driver uses, and no other; the chart grants these. */
export const rightsFor = (api: SandboxApi, access: Access['by']): Right[] => [
  ...(api === 'sandbox'
    ? rights('agents.x-k8s.io', 'sandboxes', ['create', 'get', 'list', 'watch', 'patch', 'delete'])
    : []),
  ...rights('', 'pods', ['get', 'list', 'watch', 'patch', 'delete', ...(api === 'pod' ? ['create'] : [])]),
  ...(access === 'nodeport' ? rights('', 'services', ['create', 'get', 'list', 'watch', 'delete']) : []),
  ...rights('', 'pods', ['get'], { subresource: 'log', optional: true }),
  ...rights('', 'events', ['list'], { optional: true }),
  ...rights('', 'nodes', ['get', 'list', 'watch'], { optional: true }),
]

const nameOf = ({ group, resource, subresource, verb }: Right): string =>
  `${verb} ${resource}${subresource === undefined ? '' : `/${subresource}`}${group === '' ? '' : `.${group}`}`

const isAllowed = async (client: KubeClient, namespace: string, right: Right): Promise<boolean> => {
  const { group, resource, subresource, verb } = right
  const scope = resource === 'nodes' ? {} : { namespace }
  const reply = await client.json<{ status?: { allowed?: boolean } }>({
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

const reachProblem = (server: string, error: unknown): Problem => {
  if (hasStatus(error, 401))
    return {
      what: `The Kubernetes API server at ${server} does not accept these credentials.`,
      remedy: 'Log in anew, or give KUBECONFIG the path of a kubeconfig whose token or certificate is valid.',
    }
  return {
    what: `The Kubernetes API server at ${server} cannot be reached: ${errorText(error)}`,
    remedy:
      'Check the current context of the kubeconfig (KUBECONFIG, ~/.kube/config), and that the server runs and its address is reachable from here.',
  }
}

const sandboxKindProblem = async (client: KubeClient): Promise<Problem | null> => {
  try {
    const { resources } = await client.json<{ resources: { name: string }[] }>({ path: `/apis/${SANDBOX_API_VERSION}` })
    if (resources.some(({ name }) => name === 'sandboxes')) return null
  } catch (error) {
    if (!hasStatus(error, 404)) throw error
  }
  return {
    what: `The cluster does not know Sandbox objects (${SANDBOX_API_VERSION}).`,
    remedy:
      'Install agent-sandbox 1.0 or newer (kubectl apply -f the sandbox.yaml of its release), or set K8S_SANDBOX_API=pod to make plain Pods instead.',
  }
}

const rightsProblem = (missing: Right[], namespace: string): Problem => ({
  what: `Rights are missing in namespace ${namespace}: ${missing.map(nameOf).join(', ')}.`,
  remedy: `Bind this user or service account to a Role in ${namespace} (for nodes: a ClusterRole) with these verbs; the Helm chart makes it (rbac.create=true).`,
})

/** Looks whether the driver can work here, in one go, and says all that is missing. Never throws: what cannot be found out is a problem, too. */
export const preflight = async ({ client, api, namespace, access }: PreflightOptions): Promise<Preflight> => {
  const result: Preflight = { unreachable: false, problems: [], warnings: [], mayReadNodes: false }
  try {
    await client.json({ path: '/version' })
    const kind = api === 'sandbox' ? await sandboxKindProblem(client) : null
    if (kind !== null) result.problems.push(kind)
    const limit = pLimit(8)
    const checked = await Promise.all(
      rightsFor(api, access).map((right) =>
        limit(async () => ({ right, allowed: await isAllowed(client, namespace, right) })),
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
        what: errorText(error),
        remedy: 'Let this user ask for its own rights (role system:basic-user).',
      })
    else {
      result.unreachable = true
      result.problems.push(reachProblem(client.server, error))
    }
  }
  return result
}
