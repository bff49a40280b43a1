import { createServer } from 'node:http'
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { Webhook } from 'standardwebhooks'

/** One request that a receiver got. */
export type Received = { headers: IncomingHttpHeaders; body: string; path: string; at: number }

/** What a receiver does with a request; `n` counts from 1 by `webhook-id`. */
export type Answer = (response: ServerResponse, request: Received, n: number) => void

/** Somebody else's server that takes webhooks. */
export type Receiver = AsyncDisposable & {
  url: string
  received: Received[]
  /** From now on; until told otherwise it answers 204. */
  answer(how: Answer): void
}

export const status =
  (code: number, headers: Record<string, string> = {}, body = ''): Answer =>
  (response) =>
    response.writeHead(code, headers).end(body)

const bodyOf = async (request: IncomingMessage): Promise<string> => {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

/** What the official library makes of a request. @throws when it is not signed by that secret, now */
export const verified = (
  { headers, body }: Received,
  secret: string,
): { type: string; timestamp: string; data: Record<string, unknown> } =>
  new Webhook(secret).verify(body, headers as Record<string, string>) as ReturnType<typeof verified>

export const startReceiver = async (
  options: { tls?: { key: string; cert: string }; port?: number } = {},
): Promise<Receiver> => {
  const received: Received[] = []
  let how: Answer = status(204)
  const onRequest = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const one = { headers: request.headers, body: await bodyOf(request), path: request.url ?? '', at: Date.now() }
    received.push(one)
    const id = one.headers['webhook-id']
    how(response, one, received.filter(({ headers }) => headers['webhook-id'] === id).length)
  }
  const listener = (request: IncomingMessage, response: ServerResponse): void =>
    void onRequest(request, response).catch(() => response.destroy())
  const server = options.tls === undefined ? createServer(listener) : createTlsServer(options.tls, listener)
  await new Promise<void>((resolve) => server.listen(options.port ?? 0, '127.0.0.1', resolve))
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return {
    url: `${options.tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`,
    received,
    answer: (next) => {
      how = next
    },
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
