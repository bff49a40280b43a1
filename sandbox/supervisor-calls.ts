import { Readable } from 'node:stream'
import { Agent, request } from 'undici'
import type { Dispatcher } from 'undici'
import type { Archive } from '../domain/checkpoint.ts'
import { AppError, type ErrorCode, errorText } from '../domain/errors.ts'
import { connectTimeoutMs } from '../domain/limits.ts'
import { sandboxToken } from './token.ts'

/** A sandbox as far as it must be known to talk to it; its row fits. */
export type SupervisorTarget = { id: string; endpoint: string | null }

/** The supervisor did not answer: nothing listens, the connection broke, or it took too long. What was asked may have happened. */
export class SupervisorUnreachable extends Error {
  override name = 'SupervisorUnreachable'
}

export const isSupervisorUnreachable = (error: unknown): error is SupervisorUnreachable =>
  Error.isError(error) && error.name === 'SupervisorUnreachable'

/** Journal streams send a comment every 5 s; three missed ones mean that nobody is there. */
const streamSilenceMs = 15_000
export const readTimeoutMs = 10_000

export type Call = {
  method: 'GET' | 'POST' | 'PUT'
  path: string
  body?: object
  /** In the place of `body`. */
  upload?: Archive
  headers?: Record<string, string>
  timeoutMs: number
  signal?: AbortSignal
  /** It answers late, up to `timeoutMs`. */
  slow?: true
  /** What it answers lasts for as long as its signal allows. */
  stream?: true
}

/** Of what a caller must tell apart. */
const CODES: Partial<Record<number, ErrorCode>> = { 404: 'not_found', 409: 'conflict' }

const refusal = async (path: string, response: Dispatcher.ResponseData): Promise<Error> => {
  const text = await response.body.text()
  const { code, message } = parseRefusal(text)
  // Every sandbox has a token of its own: another one has been given the address of this one.
  if (response.statusCode === 401) return new SupervisorUnreachable(`${path}: somebody else answers there`)
  // A pod that was made anew under its name: the sandbox that was meant is gone.
  if (code === 'not_configured') return new SupervisorUnreachable(`${path}: an empty sandbox answers there`)
  const what = `supervisor refused ${path} with ${response.statusCode}: ${message ?? text.slice(0, 300)}`
  return new AppError(CODES[response.statusCode] ?? 'upstream', what, { cause: { code, status: response.statusCode } })
}

const parseRefusal = (text: string): { code?: string; message?: string } => {
  try {
    return (JSON.parse(text) as { error?: { code?: string; message?: string } }).error ?? {}
  } catch {
    return {}
  }
}

/** Whatever is not the supervisor's own answer means that it did not answer. */
export const guarded = async <T>(sandbox: SupervisorTarget, path: string, work: () => Promise<T>): Promise<T> => {
  try {
    return await work()
  } catch (error) {
    if (Error.isError(error) && (error.name === 'AppError' || error.name === 'SupervisorUnreachable')) throw error
    throw new SupervisorUnreachable(`${path} of sandbox ${sandbox.id}: ${errorText(error)}`, { cause: error })
  }
}

/** How supervisors are asked: with the token of each, over connections that are kept. */
export type SupervisorCalls = AsyncDisposable & {
  send(sandbox: SupervisorTarget, call: Call): Promise<Dispatcher.ResponseData>
  /** The same, for an answer in JSON. */
  call<T>(sandbox: SupervisorTarget, call: Call): Promise<T>
}

export const createSupervisorCalls = (options: { masterKey: string }): SupervisorCalls => {
  const agent = new Agent({
    connect: { timeout: connectTimeoutMs },
    keepAliveTimeout: 4_000,
    headersTimeout: readTimeoutMs,
    bodyTimeout: streamSilenceMs,
  })

  const send = async (sandbox: SupervisorTarget, call: Call): Promise<Dispatcher.ResponseData> => {
    if (sandbox.endpoint === null) throw new SupervisorUnreachable(`sandbox ${sandbox.id} has no address`)
    const signals = [AbortSignal.timeout(call.timeoutMs), ...(call.signal === undefined ? [] : [call.signal])]
    const { upload } = call
    const json = call.body === undefined ? null : JSON.stringify(call.body)
    const token = sandboxToken(options.masterKey, sandbox.id)
    const response = await request(`${sandbox.endpoint}${call.path}`, {
      dispatcher: agent,
      method: call.method,
      headers: { 'content-type': 'application/json', ...call.headers, authorization: `Bearer ${token}` },
      body: upload === undefined ? json : Readable.from(upload.read()),
      signal: call.stream === true ? (call.signal ?? null) : AbortSignal.any(signals),
      ...(call.slow === true ? { headersTimeout: call.timeoutMs } : {}),
    })
    if (response.statusCode >= 300) throw await refusal(call.path, response)
    return response
  }

  const call = <T>(sandbox: SupervisorTarget, what: Call): Promise<T> =>
    guarded(sandbox, what.path, async () => (await (await send(sandbox, what)).body.json()) as T)

  return { send, call, [Symbol.asyncDispose]: () => agent.destroy() }
}
