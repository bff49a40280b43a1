import { readFile } from 'node:fs/promises'
import type http from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { pipeline } from 'node:stream'
import { readAccess } from '../../tools/cluster/kube.ts'
import type { PrivateCluster } from './cluster.ts'

/** What to answer instead of the API server; null: it answers itself. */
export type Interference = (request: { method: string; url: URL }) => {
  status: number
  headers?: Record<string, string>
  body?: object
} | null

/** An API server in front of the real one, which answers some requests by itself. */
export type BadServer = AsyncDisposable & {
  port: number
  interfere(how: Interference | null): void
  /** Cuts every watch. @returns how many */
  cutWatches(): number
  /** What it answered by itself, and when (milliseconds since the epoch). */
  refused: { method: string; path: string; status: number; at: number }[]
}

/** What an API server says when it refuses. */
export const statusBody = (code: number, reason: string, message: string): object => ({
  apiVersion: 'v1',
  kind: 'Status',
  status: 'Failure',
  code,
  reason,
  message,
})

/** As a server that is asked too much. */
export const SLOW_DOWN = {
  status: 429,
  headers: { 'retry-after': '1' },
  body: statusBody(429, 'TooManyRequests', 'slow down'),
}

/** As to one of two who write at once. */
export const COLLIDED = {
  status: 409,
  body: statusBody(
    409,
    'Conflict',
    'Operation cannot be fulfilled on resourcequotas "all": the object has been modified; please apply your changes to the latest version and try again',
  ),
}

/** As a load balancer in front of servers none of which is ready. */
export const NOT_READY = {
  status: 503,
  body: statusBody(503, 'ServiceUnavailable', 'no server is ready'),
}

/** It shows the certificate that clients of the real one expect. */
export const startBadServer = async ({ kubeconfig, own }: PrivateCluster): Promise<BadServer> => {
  const pki = (name: string): Promise<string> => readFile(path.join(own.dir, 'pki', name), 'utf8')
  const tls = { cert: await pki('serving.crt'), key: await pki('serving.key') }
  const real = await readAccess(kubeconfig.tester)
  let how: Interference | null = null
  const refused: BadServer['refused'] = []
  const watches = new Set<http.ServerResponse>()
  const { hostname, port } = new URL(real.server)
  const agent = new https.Agent({ keepAlive: true, ca: real.ca })
  const server = https.createServer(tls, (request, response) => {
    const method = request.method ?? 'GET'
    const url = new URL(request.url ?? '/', real.server)
    const instead = how?.({ method, url }) ?? null
    if (instead !== null) {
      refused.push({ method, path: url.pathname, status: instead.status, at: Date.now() })
      request.resume()
      const headers = { 'content-type': 'application/json', ...instead.headers }
      response.writeHead(instead.status, headers).end(JSON.stringify(instead.body ?? {}))
      return
    }
    if (url.searchParams.get('watch') === 'true') {
      watches.add(response)
      response.on('close', () => watches.delete(response))
    }
    const options = { hostname, port, method, path: request.url, headers: request.headers, agent }
    const onward = https.request(options, (answer: http.IncomingMessage) => {
      if (response.destroyed) {
        answer.destroy()
        return
      }
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      pipeline(answer, response, () => undefined)
    })
    onward.on('error', () => response.destroy())
    response.on('close', () => onward.destroy())
    request.pipe(onward)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    refused,
    interfere: (next) => {
      how = next
    },
    cutWatches: () => {
      const cut = [...watches]
      for (const response of cut) response.destroy()
      return cut.length
    },
    [Symbol.asyncDispose]: async () => {
      server.close()
      server.closeAllConnections()
      agent.destroy()
    },
  }
}
