import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { chat } from '../supervisor/dialects/chat.ts'
import type { Json } from '../supervisor/dialects/dialect.ts'
import { messages } from '../supervisor/dialects/messages.ts'
import { responses } from '../supervisor/dialects/responses.ts'

const DIALECTS = { '/v1/chat/completions': chat, '/v1/messages': messages, '/v1/responses': responses } as const

type Asked = { path: string; headers: http.IncomingHttpHeaders; body: Json }
/** A gateway that answers in every dialect, everything with `word`, and keeps what it was asked. `countNext`: what it says that its next answers have used. */
export type WordGateway = AsyncDisposable & { url: string; asked: Asked[]; countNext(tokens: number[]): void }

/** @param host the address that it listens on */
export const startWordGateway = async (host = '127.0.0.1'): Promise<WordGateway> => {
  const asked: Asked[] = []
  let counts: number[] = []
  const answer = async (request: http.IncomingMessage, response: http.ServerResponse): Promise<void> => {
    const { pathname } = new URL(request.url ?? '', 'http://gateway')
    const body = JSON.parse(await text(request)) as Json
    asked.push({ path: pathname, headers: request.headers, body })
    const dialect = DIALECTS[pathname as keyof typeof DIALECTS]
    const reply = dialect.write({ text: 'word' }, dialect.read(body))
    const tokens = counts.shift() ?? 100
    const counted = reply.body.replaceAll(/"(prompt|input|total)_tokens":\d+/g, `"$1_tokens":${tokens}`)
    response.writeHead(200, { 'content-type': reply.contentType }).end(counted)
  }
  const server = http.createServer(
    (request, response) => void answer(request, response).catch(() => response.destroy()),
  )
  await new Promise<void>((resolve) => server.listen(0, host, resolve))
  return {
    url: `http://${host}:${(server.address() as AddressInfo).port}`,
    asked,
    countNext: (next) => void (counts = next),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
