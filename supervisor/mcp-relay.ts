import { randomBytes } from 'node:crypto'
import http from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { errorText } from '../domain/errors.ts'
import type { McpServer } from '../domain/mcp.ts'

/**
 * Stands between the harness and the MCP servers of its session, so that their headers, which are mostly keys, are nowhere near the harness: some hand
 * them to their children as arguments.
 */
export type McpRelay = {
  /** The same servers, as the harness reaches them. Those that it starts itself are as they were. */
  through(servers: McpServer[]): Promise<McpServer[]>
  close(): Promise<void>
}

type HttpServer = McpServer & { transport: 'http' }

/** Between two hops only: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1 */
const HOP = new Set([
  'connection',
  'host',
  'keep-alive',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])

const endToEnd = (headers: http.IncomingHttpHeaders): http.OutgoingHttpHeaders =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => !HOP.has(name)))

const relay = async (
  { url, headers = {} }: HttpServer,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> => {
  const { request: open } = url.startsWith('https:') ? https : http
  const given = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))
  const to = open(url, { method: request.method, headers: { ...endToEnd(request.headers), ...given } })
  response.once('close', () => to.destroy())
  const answered = new Promise<IncomingMessage>((resolve, reject) => to.once('response', resolve).once('error', reject))
  await Promise.all([
    pipeline(request, to),
    answered.then((answer) => {
      response.writeHead(answer.statusCode ?? 502, endToEnd(answer.headers))
      return pipeline(answer, response)
    }),
  ])
}

export const createMcpRelay = (log: (line: string) => void): McpRelay => {
  const byPath = new Map<string, HttpServer>()
  let server: http.Server | null = null

  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    const target = byPath.get(request.url ?? '')
    if (target === undefined) return void response.writeHead(404).end()
    relay(target, request, response).catch((error: unknown) => {
      if (response.destroyed) return
      log(`MCP server ${target.name}: ${errorText(error)}`)
      if (response.headersSent) response.destroy()
      else response.writeHead(502, { 'content-type': 'text/plain' }).end(`${target.name} cannot be reached`)
    })
  }
  const listening = async (): Promise<number> => {
    if (server === null) {
      const made = (server = http.createServer(handle))
      await new Promise<void>((resolve) => made.listen(0, '127.0.0.1', resolve))
    }
    return (server.address() as AddressInfo).port
  }
  return {
    async through(servers) {
      if (!servers.some(({ transport }) => transport === 'http')) return servers
      const port = await listening()
      return servers.map((each) => {
        if (each.transport !== 'http') return each
        const path = `/${randomBytes(18).toString('base64url')}/${each.name}`
        byPath.set(path, each)
        return { name: each.name, transport: 'http', url: `http://127.0.0.1:${port}${path}` }
      })
    },
    close: () =>
      new Promise((resolve) => {
        if (server === null) return resolve()
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
