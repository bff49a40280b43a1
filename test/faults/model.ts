import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** One chat completion that was asked for. */
export type Asked = {
  /** Text of the last message of the user. */
  text: string
  /** All messages as sent, as text. */
  conversation: { role: string; text: string }[]
  at: number
  /** Words sent so far. */
  sent: number
  /** Set by a test: no more words than those that are sent. */
  enough: boolean
  outcome: 'streaming' | 'finished' | 'cut'
}

/**
 * A model that does as the user's last message says: `words=20 gap=50` streams 20 words, 50 ms apart, `silence=9000` says nothing for 9 s after the first, `think=9000` nothing at all before it; the words carry the message's marker
 * (`m-…`), so that a reply belongs to exactly one message.
 */
export type ScriptedModel = AsyncDisposable & {
  /** Base URL without `/v1`. */
  url: string
  asked: Asked[]
  /** Requests whose last user message holds the marker. */
  askedFor(marker: string): Asked[]
}

/** What the model replies to such a message. */
export const replyTo = (text: string): string => {
  const words = Number(/words=(\d+)/.exec(text)?.[1] ?? 3)
  const marker = /m-[\w-]+/.exec(text)?.[0] ?? 'unmarked'
  return Array.from({ length: words }, (_, i) => `${marker}.${i} `).join('')
}

type Content = string | { type: string; text?: string }[]
type Body = { model: string; stream?: boolean; messages: { role: string; content: Content | null }[] }

const textOf = (content: Content | null): string =>
  typeof content === 'string' ? content : (content ?? []).map((part) => part.text ?? '').join('\n')

const readBody = async (request: IncomingMessage): Promise<Body> => {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk)
  const body: Body = JSON.parse(Buffer.concat(chunks).toString('utf8'))
  return body
}

const chunkOf = (model: string, delta: object, finish: string | null): string =>
  `data: ${JSON.stringify({
    id: 'c',
    object: 'chat.completion.chunk',
    created: 1,
    model,
    choices: [{ index: 0, delta, finish_reason: finish }],
  })}\n\n`

const answer = async (body: Body, note: Asked, response: ServerResponse): Promise<void> => {
  const reply = replyTo(note.text)
  const usage = { prompt_tokens: 5, completion_tokens: reply.split(' ').length - 1, total_tokens: 10 }
  const head = { id: 'c', created: 1, model: body.model }
  if (body.stream !== true) {
    const message = { role: 'assistant', content: reply }
    response.setHeader('content-type', 'application/json')
    response.end(
      JSON.stringify({
        ...head,
        object: 'chat.completion',
        usage,
        choices: [{ index: 0, finish_reason: 'stop', message }],
      }),
    )
    note.outcome = 'finished'
    return
  }
  const thinkMs = Number(/think=(\d+)/.exec(note.text)?.[1] ?? 0)
  if (thinkMs > 0) await new Promise((resolve) => setTimeout(resolve, thinkMs))
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  const gapMs = Number(/gap=(\d+)/.exec(note.text)?.[1] ?? 0)
  const silenceMs = Number(/silence=(\d+)/.exec(note.text)?.[1] ?? 0)
  for (const word of reply.match(/\S+ /g) ?? []) {
    if (response.destroyed) return
    if (note.enough) break
    response.write(chunkOf(body.model, { role: 'assistant', content: word }, null))
    note.sent++
    const pauseMs = note.sent === 1 ? gapMs + silenceMs : gapMs
    if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs))
  }
  response.write(chunkOf(body.model, {}, 'stop'))
  response.write(`data: ${JSON.stringify({ ...head, object: 'chat.completion.chunk', choices: [], usage })}\n\n`)
  response.end('data: [DONE]\n\n')
  note.outcome = 'finished'
}

export const startModel = async (): Promise<ScriptedModel> => {
  const asked: Asked[] = []
  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    if (request.url?.endsWith('/models') === true) {
      response.setHeader('content-type', 'application/json')
      response.end(
        JSON.stringify({ object: 'list', data: [{ id: 'scripted', object: 'model', created: 1, owned_by: 'test' }] }),
      )
      return
    }
    const body = await readBody(request)
    const conversation = body.messages.map(({ role, content }) => ({ role, text: textOf(content) }))
    const text = conversation.findLast(({ role }) => role === 'user')?.text ?? ''
    const note: Asked = { text, conversation, at: Date.now(), sent: 0, enough: false, outcome: 'streaming' }
    response.once('close', () => {
      if (note.outcome === 'streaming') note.outcome = 'cut'
    })
    asked.push(note)
    await answer(body, note, response)
  }
  const server = createServer((request, response) => void serve(request, response).catch(() => response.destroy()))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address: AddressInfo | string | null = server.address()
  if (address === null || typeof address === 'string') throw new Error('no address')
  return {
    url: `http://127.0.0.1:${address.port}`,
    asked,
    askedFor: (marker) => asked.filter(({ text }) => text.includes(marker)),
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
