import type http from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream'
import type { Access } from '../../tools/cluster/kube.ts'

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
  refused: { method: string; path: string; at: number }[]
}

/** @param tls what clients of the real one expect it to show */
export const startBadServer = async (real: Access, tls: { cert: string; key: string }): Promise<BadServer> => {
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
      refused.push({ method, path: url.pathname, at: Date.now() })
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
