import { once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createKubeClient } from '../kubernetes/client.ts'
import type { KubeClient } from '../kubernetes/client.ts'
import type { Credentials, Login } from '../kubernetes/credentials.ts'

/** What is answered at a path: an object, a text, a refusal by its status, or nothing at all. */
type Answer = object | string | { refuse: number; message?: string } | typeof SILENCE
/** Or what decides it, each time anew. */
export type Scripted = Answer | ((request: IncomingMessage) => Answer | Promise<Answer>)

export const SILENCE = Symbol('silence')

export type ScriptedCluster = AsyncDisposable & {
  client: KubeClient
  /** `GET /path?query`, in order. */
  asked: string[]
  /** Path without query → its answer. What is not here is not found. */
  answers: Map<string, Scripted>
  /** Rights that are not granted, as `verb resource` or `verb resource/subresource`; of all namespaces with ` *`. */
  denied: Set<string>
}

type Review = {
  spec: { resourceAttributes: { verb: string; resource: string; subresource?: string; namespace?: string } }
}

const send = (response: ServerResponse, status: number, body: object | string): void => {
  const text = typeof body === 'string'
  response.writeHead(status, { 'content-type': text ? 'text/plain' : 'application/json' })
  response.end(text ? body : JSON.stringify(body))
}

const refuse = (response: ServerResponse, code: number, message: string): void =>
  send(response, code, { kind: 'Status', status: 'Failure', code, message })

const isRefusal = (answer: Answer): answer is { refuse: number; message?: string } =>
  typeof answer === 'object' && 'refuse' in answer

/** Those of somebody who has no others. */
export const fixedCredentials = (server: string, login: Login = { headers: {}, tls: {} }): Credentials => ({
  server,
  namespace: null,
  current: async () => login,
  renew: async () => login,
})

/** An API server whose answers a test decides, over real HTTP. It knows Sandboxes, and grants all rights, unless told otherwise. */
export const startScriptedCluster = async (): Promise<ScriptedCluster> => {
  const asked: string[] = []
  const denied = new Set<string>()
  const answers = new Map<string, Scripted>([
    ['/version', { gitVersion: 'v1.34.0' }],
    ['/apis/agents.x-k8s.io/v1beta1', { resources: [{ name: 'sandboxes' }] }],
    ['/apis/agents.x-k8s.io/v1beta1/namespaces/sandboxes/sandboxes', { metadata: {}, items: [] }],
    ['/api/v1/namespaces/sandboxes/events', { metadata: {}, items: [] }],
  ])
  const review = (body: string): object => {
    const { verb, resource, subresource, namespace } = (JSON.parse(body) as Review).spec.resourceAttributes
    const right = `${verb} ${resource}${subresource === undefined ? '' : `/${subresource}`}`
    return { status: { allowed: !denied.has(namespace === undefined ? `${right} *` : right) } }
  }
  const answerTo = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? '/', 'http://server')
    asked.push(`${request.method} ${url.pathname}${url.search}`)
    const scripted = answers.get(url.pathname)
    const answer = typeof scripted === 'function' ? await scripted(request) : scripted
    if (answer === SILENCE) return
    if (url.pathname.endsWith('/selfsubjectaccessreviews') && answer === undefined) {
      let body = ''
      request.on('data', (bytes: Buffer) => (body += bytes.toString()))
      request.on('end', () => send(response, 201, review(body)))
      return
    }
    if (answer === undefined) return refuse(response, 404, `${url.pathname} not found`)
    if (isRefusal(answer)) return refuse(response, answer.refuse, answer.message ?? `refused with ${answer.refuse}`)
    send(response, 200, answer)
  }
  const server = createServer((request, response) => void answerTo(request, response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const client = createKubeClient(fixedCredentials(`http://127.0.0.1:${port}`))
  return {
    client,
    asked,
    answers,
    denied,
    async [Symbol.asyncDispose]() {
      await client[Symbol.asyncDispose]()
      server.closeAllConnections()
      server.close()
    },
  }
}

/** A kubeconfig for a server without TLS. @param user how to log in, for instance `{ token }` */
export const scriptedKubeconfig = (server: string, user: object): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'scripted',
    contexts: [{ name: 'scripted', context: { cluster: 'scripted', user: 'scripted' } }],
    clusters: [{ name: 'scripted', cluster: { server, 'insecure-skip-tls-verify': true } }],
    users: [{ name: 'scripted', user }],
  })

const ago = (ms: number): string => new Date(Date.now() - ms).toISOString()

/** A healthy sandbox of this name in namespace `sandboxes`, on node `n1`, with everything that belongs to it. */
export const scriptSandbox = ({ answers }: ScriptedCluster, name: string): void => {
  const metadata = { name, uid: `uid-${name}`, creationTimestamp: ago(60_000), labels: { 'lap/state': 'claimed' } }
  const conditions = [{ type: 'Ready', status: 'True', reason: 'DependenciesReady' }]
  const container = { name: 'harness', image: 'registry.test/harness:1', resources: { requests: { cpu: '250m' } } }
  answers.set(`/apis/agents.x-k8s.io/v1beta1/namespaces/sandboxes/sandboxes/${name}`, {
    metadata,
    status: { conditions, podIPs: ['10.0.0.7'], nodeName: 'n1' },
  })
  const pod = {
    metadata,
    spec: { nodeName: 'n1', containers: [container] },
    status: {
      phase: 'Running',
      startTime: ago(59_000),
      podIP: '10.0.0.7',
      podIPs: [{ ip: '10.0.0.7' }],
      hostIP: '192.168.0.1',
      conditions: [{ type: 'Ready', status: 'True' }],
      containerStatuses: [
        { name: 'harness', image: container.image, ready: true, restartCount: 0, state: { running: {} } },
      ],
    },
  }
  const at = '/api/v1/namespaces/sandboxes'
  answers.set(`${at}/pods/${name}`, pod)
  answers.set(`${at}/pods/${name}/log`, 'first line\nlast line\n')
  answers.set(`${at}/services/${name}`, {
    metadata,
    spec: {
      type: 'NodePort',
      clusterIP: '10.1.0.9',
      ports: [{ port: 4090, targetPort: 4090, nodePort: 30_123, protocol: 'TCP' }],
    },
  })
  answers.set(`${at}/events`, {
    metadata: {},
    items: [
      { metadata: { name: 'b' }, lastTimestamp: ago(1_000), type: 'Normal', reason: 'Started', message: 'started' },
      { metadata: { name: 'a' }, eventTime: ago(2_000), type: 'Normal', reason: 'Scheduled', message: 'assigned' },
    ],
  })
  answers.set('/api/v1/nodes/n1', {
    metadata: { name: 'n1', creationTimestamp: ago(3_600_000) },
    spec: { taints: [{ key: 'dedicated', value: 'agents', effect: 'NoSchedule' }] },
    status: {
      conditions: [{ type: 'Ready', status: 'True', reason: 'KubeletReady' }],
      addresses: [
        { type: 'InternalIP', address: '192.168.0.1' },
        { type: 'ExternalIP', address: '203.0.113.1' },
      ],
      capacity: { cpu: '4', memory: '8Gi', pods: '110' },
      allocatable: { cpu: '3920m', memory: '7Gi' },
      images: [{ names: ['registry.test/harness:1', `registry.test/harness@sha256:${'0'.repeat(64)}`] }],
    },
  })
  answers.set('/api/v1/pods', { metadata: {}, items: [pod, { metadata: { name: 'other' }, spec: pod.spec }] })
}
