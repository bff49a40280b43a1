import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Dialect, type Json } from '../supervisor/dialects/dialect.ts'
import { messages } from '../supervisor/dialects/messages.ts'
import { responses } from '../supervisor/dialects/responses.ts'
import { nowMs } from './client.ts'

/**
 * A model that costs nothing: it answers at once, and notes when it was asked. What is measured around it is the platform and the harness.
 * It answers three words; asked for `stream N every M`, N words, M milliseconds apart. Each word is the moment at which it was said. In the dialects of Claude and
 * Codex it answers one word.
 */
export type BenchModel = AsyncDisposable & {
  /** Base URL without `/v1`. */
  url: string
  /** Resolves with the moment (`nowMs`) at which the first request that holds `marker` arrived. */
  asked(marker: string): Promise<number>
}

type Waiter = { marker: string; resolve: (at: number) => void }

const bodyOf = async (request: IncomingMessage): Promise<string> => {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

const HEAD = { id: 'bench', created: 0, model: 'bench' }

const sendJson = (response: ServerResponse, body: object): void => {
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify(body))
}

const sendStream = async (response: ServerResponse, words: number, gapMs: number): Promise<void> => {
  const chunk = (choices: object[], more: object = {}): void =>
    void response.write(`data: ${JSON.stringify({ ...HEAD, object: 'chat.completion.chunk', choices, ...more })}\n\n`)
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  for (let i = 0; i < words && !response.destroyed; i++) {
    if (gapMs > 0 && i > 0) await sleep(gapMs)
    chunk([{ index: 0, delta: { role: 'assistant', content: `@${nowMs().toFixed(2)} ` }, finish_reason: null }])
  }
  chunk([{ index: 0, delta: {}, finish_reason: 'stop' }])
  chunk([], { usage: usageOf(words) })
  response.end('data: [DONE]\n\n')
}

const usageOf = (words: number): object => ({
  prompt_tokens: 1,
  completion_tokens: words,
  total_tokens: words + 1,
})

/** By the end of the path, where it is not OpenAI's chat completions. */
const OTHER_DIALECTS: Record<string, Dialect> = { '/messages': messages, '/responses': responses }

const dialectOf = (url = ''): Dialect | undefined =>
  OTHER_DIALECTS[new URL(url, 'http://bench').pathname.replace(/^.*(?=\/)/, '')]

/** When the word was said, or null for text of another kind. */
export const saidAt = (word: string): number | null => {
  const at = Number(/^@(\d+\.\d+) $/.exec(word)?.[1])
  return Number.isNaN(at) ? null : at
}

const answer = async (request: IncomingMessage, response: ServerResponse, waiting: Set<Waiter>): Promise<void> => {
  const at = nowMs()
  if (request.url?.endsWith('/models') === true) {
    sendJson(response, { object: 'list', data: [{ id: 'bench', object: 'model', created: 0, owned_by: 'bench' }] })
    return
  }
  const text = await bodyOf(request)
  for (const waiter of waiting) {
    if (!text.includes(waiter.marker)) continue
    waiting.delete(waiter)
    waiter.resolve(at)
  }
  const dialect = dialectOf(request.url)
  if (dialect !== undefined) {
    const { contentType, body } = dialect.write(
      { text: `@${nowMs().toFixed(2)} ` },
      dialect.read(JSON.parse(text) as Json),
    )
    return void response.writeHead(200, { 'content-type': contentType }).end(body)
  }
  const wish = [...text.matchAll(/stream (\d+) every (\d+)/g)].at(-1)
  const words = Number(wish?.[1] ?? 3)
  const { stream } = JSON.parse(text) as { stream?: boolean }
  if (stream === true) return sendStream(response, words, Number(wish?.[2] ?? 0))
  const message = { role: 'assistant', content: 'word '.repeat(words) }
  sendJson(response, {
    ...HEAD,
    object: 'chat.completion',
    choices: [{ index: 0, message, finish_reason: 'stop' }],
    usage: usageOf(words),
  })
}

/** @param host the address at which it is asked */
export const startModel = async (host: string): Promise<BenchModel> => {
  const waiting = new Set<Waiter>()
  const server = createServer((request, response) => {
    answer(request, response, waiting).catch(() => response.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, host, resolve))
  return {
    url: `http://${host}:${(server.address() as AddressInfo).port}`,
    asked: (marker) => new Promise((resolve) => waiting.add({ marker, resolve })),
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
