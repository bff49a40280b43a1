import http from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import type { BindRequest, Configuration, TurnRequest } from '../../domain/supervisor-protocol.ts'
import { connectKube, readAccess } from '../../tools/cluster/kube.ts'
import { createInformer } from './informer.ts'
import { createPodSupervisor, type Pace, type PodSupervisor, Refusal } from './pod-supervisor.ts'

/**
 * The supervisors of all fake pods of a namespace, in this process. Pods of fake nodes have addresses of the loopback (127.64.0.0/16), so that one port answers for
 * all of them, each under the address of its status; which pod is meant is told by the address that was called. A supervisor lives as long as its container: it
 * comes when the pod runs and goes, connections and all, when the pod does.
 *
 * Ports of nodes are passed on as kube-proxy does: a Service of type NodePort is answered on its port.
 */
export type Supervisors = AsyncDisposable & {
  /** `PodSettings.supervisorPort` */
  port: number
  /** How many pods have a supervisor now. */
  count(): number
  /** The configuration, epoch, … of a sandbox whose pod runs. */
  of(podName: string): PodSupervisor | undefined
  /** Breaks every connection to this pod. */
  cut(podName: string): void
}

export type SupervisorsOptions = {
  kubeconfig: string
  namespace: string
  pace?: Partial<Pace>
  /** Where ports of nodes are answered. Clusters give the same ports, so those of two at once need two addresses. */
  nodeHost?: string
}

type Pod = {
  metadata: { name: string; namespace: string; uid: string; resourceVersion: string; deletionTimestamp?: string }
  spec: { containers: { env?: { name: string; value?: string }[] }[] }
  status?: { phase?: string; podIP?: string }
}
type Service = {
  metadata: Pod['metadata']
  spec: { type?: string; selector?: Record<string, string>; ports?: { nodePort?: number }[] }
}
type Running = { name: string; uid: string; ip: string; supervisor: PodSupervisor; responses: Set<ServerResponse> }

const HEARTBEAT_MS = 5_000
/** The one who calls may have seen the pod run before we did. */
const APPEAR_MS = 2_000

const send = (response: ServerResponse, status: number, body: object): void =>
  void response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))

const closedBy = (response: ServerResponse): AbortSignal => {
  const closed = new AbortController()
  response.once('close', () => closed.abort())
  return closed.signal
}

const streamBoot = async (supervisor: PodSupervisor, response: ServerResponse): Promise<void> => {
  const signal = closedBy(response)
  response.writeHead(200, { 'content-type': 'application/x-ndjson' })
  const heartbeat = setInterval(() => response.write('\n'), HEARTBEAT_MS)
  signal.addEventListener('abort', () => clearInterval(heartbeat))
  for (;;) {
    response.write(`${JSON.stringify(supervisor.health())}\n`)
    if (supervisor.hasBooted() || signal.aborted) break
    await supervisor.changed(signal)
  }
  clearInterval(heartbeat)
  response.end()
}

const streamJournal = async (supervisor: PodSupervisor, after: number, response: ServerResponse): Promise<void> => {
  const signal = closedBy(response)
  response.writeHead(200, { 'content-type': 'text/event-stream' }).write(': journal\n\n')
  const heartbeat = setInterval(() => response.write(': alive\n\n'), HEARTBEAT_MS)
  signal.addEventListener('abort', () => clearInterval(heartbeat))
  for (let seq = after; !signal.aborted;) {
    for (const entry of supervisor.journal(seq)) {
      response.write(`id: ${entry.seq}\ndata: ${JSON.stringify(entry)}\n\n`)
      seq = entry.seq
    }
    await supervisor.changed(signal)
  }
}

const answer = async (supervisor: PodSupervisor, request: IncomingMessage, response: ServerResponse): Promise<void> => {
  const url = new URL(request.url ?? '/', 'http://supervisor')
  const bytes = await buffer(request)
  const raw = bytes.toString()
  const body = (): unknown => JSON.parse(raw === '' ? '{}' : raw)
  const isKnown = supervisor.isKnown(request.headers.authorization)
  if (url.pathname === '/healthz') {
    if (isKnown && supervisor.isConfigured()) return send(response, 200, supervisor.health())
    if (!isKnown) return void response.writeHead(supervisor.isConfigured() && supervisor.hasBooted() ? 200 : 503).end()
  }
  if (!isKnown) throw new Refusal(401, 'unauthorized', 'wrong token')
  if (url.pathname === '/configure') {
    supervisor.configure(body() as Configuration, raw)
    return streamBoot(supervisor, response)
  }
  if (!supervisor.isConfigured()) throw new Refusal(503, 'not_configured', 'the sandbox is not configured')
  switch (`${request.method} ${url.pathname}`) {
    case 'POST /bind':
      return send(response, 200, supervisor.bind(body() as BindRequest))
    case 'POST /turns':
      supervisor.startTurn(body() as TurnRequest)
      return send(response, 202, {})
    case 'POST /interrupt':
      supervisor.interrupt((body() as { turn_id?: string }).turn_id)
      return send(response, 202, {})
    case 'POST /checkpoint': {
      const { manifest, archive } = supervisor.takeCheckpoint()
      const told = Buffer.from(JSON.stringify(manifest)).toString('base64url')
      response.writeHead(200, { 'content-type': 'application/gzip', 'x-lap-checkpoint': told }).end(archive)
      return
    }
    case 'PUT /checkpoint': {
      const id = String(request.headers['x-lap-checkpoint-id'])
      return send(response, 200, supervisor.restoreCheckpoint(id, bytes))
    }
    case 'GET /events':
      return streamJournal(supervisor, Number(url.searchParams.get('after') ?? 0), response)
    case 'GET /messages':
      return send(response, 200, supervisor.messages())
    case 'GET /logs':
      return send(response, 200, { lines: [] })
    default:
      throw new Refusal(404, 'not_found', `${request.method} ${url.pathname} is not known here`)
  }
}

const refuse = (response: ServerResponse, error: unknown): void => {
  if (response.headersSent) return void response.destroy()
  const { status, code } = error instanceof Refusal ? error : { status: 500, code: 'internal' }
  send(response, status, { error: { code, message: Error.isError(error) ? error.message : String(error) } })
}

const listen = async (server: http.Server, port: number, host: string): Promise<number> => {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, resolve)
  })
  return (server.address() as AddressInfo).port
}

const envOf = (pod: Pod, name: string): string | undefined =>
  pod.spec.containers.flatMap(({ env }) => env ?? []).find((variable) => variable.name === name)?.value

/** Which pods run, by name. */
const createPods = (pace: Pace) => {
  const byName = new Map<string, Running>()
  const cut = ({ responses }: Running): void => responses.forEach((response) => response.destroy())
  const end = (name: string): void => {
    const running = byName.get(name)
    byName.delete(name)
    if (running !== undefined) cut(running)
  }
  return {
    byName,
    cut,
    see(pod: Pod, isThere: boolean): void {
      const { name, uid } = pod.metadata
      const { phase, podIP: ip } = pod.status ?? {}
      if (byName.get(name)?.uid !== uid) end(name)
      if (!isThere || phase === 'Failed' || phase === 'Succeeded') return end(name)
      const sandboxId = envOf(pod, 'LAP_SANDBOX_ID')
      const tokenSha256 = envOf(pod, 'LAP_TOKEN_SHA256')
      if (byName.has(name) || phase !== 'Running' || ip === undefined) return
      if (sandboxId === undefined || tokenSha256 === undefined) return
      const supervisor = createPodSupervisor({ sandboxId, tokenSha256 }, pace)
      byName.set(name, { name, uid, ip, supervisor, responses: new Set() })
    },
  }
}

/** Finds the one that is meant, now or within a moment. */
const find = async (look: () => Running | undefined): Promise<Running | undefined> => {
  for (const deadline = Date.now() + APPEAR_MS; ;) {
    const running = look()
    if (running !== undefined || Date.now() > deadline) return running
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

const serve = (look: (request: IncomingMessage) => Running | undefined): http.Server =>
  http.createServer((request, response) => {
    void find(() => look(request)).then((running) => {
      // Where no pod runs nobody listens.
      if (running === undefined) {
        request.socket.destroy()
        return
      }
      running.responses.add(response)
      response.once('close', () => running.responses.delete(response))
      answer(running.supervisor, request, response).catch((error: unknown) => refuse(response, error))
    })
  })

export const startSupervisors = async ({
  kubeconfig,
  namespace,
  pace,
  nodeHost = '127.0.0.1',
}: SupervisorsOptions): Promise<Supervisors> => {
  const kube = connectKube(await readAccess(kubeconfig))
  const stopping = new AbortController()
  const { signal } = stopping
  const pods = createPods({ turnMs: 5, ...pace })
  const root = `/api/v1/namespaces/${namespace}`
  const informer = createInformer<Pod>({
    kube,
    path: `${root}/pods`,
    onChange: (pod) =>
      pods.see(pod, informer.get(`${namespace}/${pod.metadata.name}`)?.metadata.uid === pod.metadata.uid),
    signal,
  })
  const main = serve(({ socket }) => {
    for (const running of pods.byName.values()) if (running.ip === socket.localAddress) return running
    return undefined
  })
  // All addresses, because the loopback has no other way to listen to a range; who is not of this machine is not answered.
  main.on('connection', (socket) => {
    if (!socket.remoteAddress?.startsWith('127.')) socket.destroy()
  })
  const port = await listen(main, 0, '0.0.0.0')
  const nodePorts = new Map<number, http.Server>()
  const services = createInformer<Service>({
    kube,
    path: `${root}/services`,
    onChange: ({ metadata: { name }, spec }) => {
      const nodePort = spec.type === 'NodePort' ? spec.ports?.[0]?.nodePort : undefined
      if (nodePort === undefined) return
      const isThere = services.get(`${namespace}/${name}`) !== undefined
      if (isThere === nodePorts.has(nodePort)) return
      const known = nodePorts.get(nodePort)
      nodePorts.delete(nodePort)
      known?.close()
      known?.closeAllConnections()
      if (!isThere) return
      const server = serve(() => pods.byName.get(name))
      nodePorts.set(nodePort, server)
      // Without it a sandbox could not be reached for a reason that has nothing to do with the platform.
      listen(server, nodePort, nodeHost).catch((error: unknown) => {
        throw new Error(`the node port of ${name} cannot be answered`, { cause: error })
      })
    },
    signal,
  })
  await Promise.all([informer.synced, services.synced])
  return {
    port,
    count: () => pods.byName.size,
    of: (name) => pods.byName.get(name)?.supervisor,
    cut: (name) => {
      const running = pods.byName.get(name)
      if (running !== undefined) pods.cut(running)
    },
    [Symbol.asyncDispose]: async () => {
      stopping.abort()
      for (const server of [main, ...nodePorts.values()]) {
        server.close()
        server.closeAllConnections()
      }
      await kube[Symbol.asyncDispose]()
    },
  }
}
