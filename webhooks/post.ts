import { Agent, request } from 'undici'
import type { Dispatcher } from 'undici'
import { errorText } from '../domain/errors.ts'
import { webhookAnswerKeptChars, webhookAnswerMaxBytes, webhookTimeoutMs } from '../domain/limits.ts'
import { parseRetryAfter } from '../domain/webhook.ts'
import type { Outcome } from '../domain/webhook.ts'
import { checkHost, isRefused, publicLookup } from './address.ts'
import type { Resolve } from './address.ts'

export type Post = {
  url: string
  headers: Record<string, string>
  body: string
  /** Aborted when nobody waits for the outcome any more. */
  signal: AbortSignal
}

export type Sender = {
  /** One try, without redirects. @throws what the signal was aborted with, and nothing else */
  post(post: Post): Promise<Outcome>
}

type Options = {
  /** Receivers at addresses that are not public, and without TLS. */
  allowPrivate: boolean
  timeoutMs?: number
  resolve?: Resolve
}

const nothing = { statusCode: null, response: null, retryAfterMs: null }

/** The begin of an answer, for people. A receiver may send for ever: what comes after the bound is not read. */
const beginOf = async (body: Dispatcher.ResponseData['body']): Promise<string | null> => {
  const chunks: Buffer[] = []
  let bytes = 0
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      chunks.push(chunk)
      bytes += chunk.length
      if (bytes >= webhookAnswerMaxBytes) break
    }
  } catch {
    // What it said before it broke off is kept.
  }
  const text = Buffer.concat(chunks).toString('utf8').slice(0, webhookAnswerKeptChars).trim()
  return text === '' ? null : text
}

const isRedirect = (status: number): boolean => status >= 300 && status < 400

/** Statuses by which a receiver says when it wants to be asked again. */
const ASK_LATER = new Set([429, 503])

const answered = async ({ statusCode, headers, body }: Dispatcher.ResponseData): Promise<Outcome> => {
  // The status is the answer: what follows it is waited for only where it may say what is wrong.
  if (statusCode >= 200 && statusCode < 300) return { result: 'success', error: null, ...nothing, statusCode }
  const after = headers['retry-after']
  const retryAfter = typeof after === 'string' && ASK_LATER.has(statusCode) ? after : undefined
  const hint = isRedirect(statusCode) ? '; redirects are not followed: change the url of the webhook' : ''
  return {
    result: 'status',
    statusCode,
    error: `The receiver answered ${statusCode}${hint}`,
    response: await beginOf(body),
    retryAfterMs: parseRetryAfter(retryAfter, Date.now()),
  }
}

/** The innermost cause says what happened; what is around it says that something did. */
const rootOf = (error: unknown): unknown => {
  if (Error.isError(error) && error.name === 'AggregateError') {
    const first: unknown = (error as AggregateError).errors[0]
    return first === undefined ? error : rootOf(first)
  }
  return Error.isError(error) && error.cause !== undefined ? rootOf(error.cause) : error
}

const failed = (error: unknown): Outcome => {
  const root = rootOf(error)
  if (isRefused(root)) return { ...nothing, result: 'refused', error: `Not sent: ${root.message}` }
  return { ...nothing, result: 'connection', error: `The receiver cannot be reached: ${errorText(root)}`.slice(0, 500) }
}

const refusedUrl = (url: URL): string | null =>
  url.protocol === 'https:' ? null : 'Not sent: only https is allowed (WEBHOOK_ALLOW_PRIVATE_TARGETS)'

/** Sends to receivers, each try over a connection of its own, whose address is the one that was checked. */
export const createSender = ({ allowPrivate, timeoutMs = webhookTimeoutMs, resolve }: Options): Sender => {
  const connect = { timeout: timeoutMs, ...(allowPrivate ? {} : { lookup: publicLookup(resolve) }) }

  const send = async ({ url, headers, body, signal }: Post): Promise<Outcome> => {
    const limit = AbortSignal.timeout(timeoutMs)
    const agent = new Agent({ connect, headersTimeout: 0, bodyTimeout: 0, allowH2: false })
    try {
      if (!allowPrivate) checkHost(new URL(url).hostname)
      const sent = {
        dispatcher: agent,
        method: 'POST' as const,
        headers,
        body,
        signal: AbortSignal.any([limit, signal]),
      }
      return await answered(await request(url, sent))
    } catch (error) {
      signal.throwIfAborted()
      if (!limit.aborted) return failed(error)
      return { ...nothing, result: 'timeout', error: `The receiver did not answer within ${timeoutMs / 1_000} s` }
    } finally {
      await agent.destroy()
    }
  }

  return {
    async post(post) {
      const refusal = allowPrivate ? null : refusedUrl(new URL(post.url))
      return refusal === null ? send(post) : { ...nothing, result: 'refused', error: refusal }
    },
  }
}
