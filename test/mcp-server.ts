import { once } from 'node:events'
import { type IncomingMessage, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

/** An MCP server over streamable HTTP with one tool, `echo {text}`, behind a key: https://modelcontextprotocol.io/specification/2025-06-18/basic/transports */
export type TestMcpServer = AsyncDisposable & {
  url: string
  /** Its `Authorization` header. */
  authorization: string
  /** Texts with which the tool was called. */
  echoed: string[]
  /** Requests that did not show the key. */
  refused: number
}

type Call = {
  id?: number | string
  method: string
  params?: { protocolVersion?: string; arguments?: { text?: string } }
}

const TOOL = {
  name: 'echo',
  description: 'Repeats a text',
  inputSchema: { type: 'object', properties: { text: { type: 'string' } }, required: ['text'] },
}

const bodyOf = async (request: IncomingMessage): Promise<string> => {
  let text = ''
  for await (const part of request.setEncoding('utf8') as AsyncIterable<string>) text += part
  return text
}

export const MCP_KEY = 'mcp-server-secret-815'

/** @param port 0: any free one */
export const startMcpServer = async (port = 0): Promise<TestMcpServer> => {
  const authorization = `Bearer ${MCP_KEY}`
  const echoed: string[] = []
  let refused = 0
  const resultOf = ({ method, params }: Call): object => {
    if (method === 'initialize')
      return {
        protocolVersion: params?.protocolVersion ?? '2025-06-18',
        capabilities: { tools: {} },
        serverInfo: { name: 'echo', version: '1.0.0' },
      }
    if (method === 'tools/list') return { tools: [TOOL] }
    if (method !== 'tools/call') return {}
    echoed.push(params?.arguments?.text ?? '')
    return { content: [{ type: 'text', text: `echo of ${params?.arguments?.text}` }] }
  }
  const server = createServer((request, response) => {
    const answer = async (): Promise<void> => {
      if (request.headers.authorization !== authorization) {
        refused++
        return void response.writeHead(401).end()
      }
      if (request.method !== 'POST') return void response.writeHead(405).end()
      const call = JSON.parse(await bodyOf(request)) as Call
      if (call.id === undefined) return void response.writeHead(202).end()
      response.writeHead(200, { 'content-type': 'application/json' })
      response.end(JSON.stringify({ jsonrpc: '2.0', id: call.id, result: resultOf(call) }))
    }
    answer().catch(() => response.destroy())
  })
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`,
    authorization,
    echoed,
    get refused() {
      return refused
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}
