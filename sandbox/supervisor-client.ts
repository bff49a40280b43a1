import { Agent, request } from 'undici'
import type { Dispatcher } from 'undici'
import { AppError, type ErrorCode, errorText } from '../domain/errors.ts'
import { abortTimeoutMs, bindTimeoutMs, connectTimeoutMs, probeTimeoutMs } from '../domain/limits.ts'
import type { PermissionDecision } from '../domain/permission.ts'
import type { BindReply, BindRequest, Health, JournalEntry, TurnRequest } from '../domain/supervisor-protocol.ts'
import type { TurnReply } from '../domain/turn.ts'
import { sandboxToken } from './token.ts'

/** A sandbox as far as it must be known to talk to it; its row fits. */
export type SupervisorTarget = { id: string; endpoint: string | null }

/** The supervisor did not answer: nothing listens, the connection broke, or it took too long. What was asked may have happened. */
export class SupervisorUnreachable extends Error {
  override name = 'SupervisorUnreachable'
}

export const isSupervisorUnreachable = (error: unknown): error is SupervisorUnreachable =>
  Error.isError(error) && error.name === 'SupervisorUnreachable'

/**
 * Talks to supervisors. Every call throws `SupervisorUnreachable`, or an `AppError` that repeats what the supervisor refused
 * (`conflict`: other epoch, another turn running, not bound; `upstream`: anything else).
 */
export type SupervisorClient = AsyncDisposable & {
  health(sandbox: SupervisorTarget): Promise<Health>
  bind(sandbox: SupervisorTarget, body: BindRequest): Promise<BindReply>
  /** Idempotent by `turn_id`. */
  startTurn(sandbox: SupervisorTarget, body: TurnRequest): Promise<void>
  /** The turn then finishes as `cancelled`. Without an id: whichever runs. */
  interrupt(sandbox: SupervisorTarget, turnId?: string): Promise<void>
  /** Answers the question `permission_asked` with that id; the same answer again is harmless. @throws AppError `not_found`: it is over */
  replyPermission(sandbox: SupervisorTarget, id: string, decision: PermissionDecision): Promise<void>
  /** The harness' own thread. */
  messages(sandbox: SupervisorTarget): Promise<TurnReply[]>
  logs(sandbox: SupervisorTarget, tail: number): Promise<string[]>
  /** The journal after `after`, then live. Ends only by the signal, or throws `SupervisorUnreachable`. */
  events(sandbox: SupervisorTarget, options: { after: number; signal: AbortSignal }): AsyncIterable<JournalEntry>
}

/** Journal streams send a comment every 5 s; three missed ones mean that nobody is there. */
const streamSilenceMs = 15_000
const readTimeoutMs = 10_000

type Call = { method: 'GET' | 'POST'; path: string; body?: object; timeoutMs: number; signal?: AbortSignal }

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
  return new AppError(CODES[response.statusCode] ?? 'upstream', what, { cause: { code } })
}

const parseRefusal = (text: string): { code?: string; message?: string } => {
  try {
    return (JSON.parse(text) as { error?: { code?: string; message?: string } }).error ?? {}
  } catch {
    return {}
  }
}

/** Entries of a journal stream. A frame that is cut off at the end is not delivered. */
async function* entriesOf(body: AsyncIterable<Buffer>): AsyncGenerator<JournalEntry> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const bytes of body) {
    rest += decoder.decode(bytes, { stream: true })
    const frames = rest.split('\n\n')
    rest = frames.pop() ?? ''
    for (const frame of frames) {
      const data = frame.split('\n').find((line) => line.startsWith('data: '))
      if (data !== undefined) yield JSON.parse(data.slice(6)) as JournalEntry
    }
  }
}

/** Whatever is not the supervisor's own answer means that it did not answer. */
const guarded = async <T>(sandbox: SupervisorTarget, path: string, work: () => Promise<T>): Promise<T> => {
  try {
    return await work()
  } catch (error) {
    if (Error.isError(error) && (error.name === 'AppError' || error.name === 'SupervisorUnreachable')) throw error
    throw new SupervisorUnreachable(`${path} of sandbox ${sandbox.id}: ${errorText(error)}`, { cause: error })
  }
}

export const createSupervisorClient = (options: { masterKey: string }): SupervisorClient => {
  const agent = new Agent({
    connect: { timeout: connectTimeoutMs },
    keepAliveTimeout: 4_000,
    headersTimeout: readTimeoutMs,
    bodyTimeout: streamSilenceMs,
  })

  const send = async (sandbox: SupervisorTarget, call: Call): Promise<Dispatcher.ResponseData> => {
    if (sandbox.endpoint === null) throw new SupervisorUnreachable(`sandbox ${sandbox.id} has no address`)
    const signals = [AbortSignal.timeout(call.timeoutMs), ...(call.signal === undefined ? [] : [call.signal])]
    const token = sandboxToken(options.masterKey, sandbox.id)
    const response = await request(`${sandbox.endpoint}${call.path}`, {
      dispatcher: agent,
      method: call.method,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: call.body === undefined ? null : JSON.stringify(call.body),
      signal: call.path.startsWith('/events') ? (call.signal ?? null) : AbortSignal.any(signals),
    })
    if (response.statusCode >= 300) throw await refusal(call.path, response)
    return response
  }

  const call = <T>(sandbox: SupervisorTarget, what: Call): Promise<T> =>
    guarded(sandbox, what.path, async () => (await (await send(sandbox, what)).body.json()) as T)

  return {
    health: (sandbox) => call(sandbox, { method: 'GET', path: '/healthz', timeoutMs: probeTimeoutMs }),
    bind: (sandbox, body) => call(sandbox, { method: 'POST', path: '/bind', body, timeoutMs: bindTimeoutMs }),
    startTurn: async (sandbox, body) =>
      void (await call(sandbox, { method: 'POST', path: '/turns', body, timeoutMs: readTimeoutMs })),
    interrupt: async (sandbox, turnId) => {
      const body = turnId === undefined ? {} : { turn_id: turnId }
      await call(sandbox, { method: 'POST', path: '/interrupt', body, timeoutMs: abortTimeoutMs })
    },
    replyPermission: async (sandbox, id, decision) => {
      const path = `/permissions/${encodeURIComponent(id)}`
      await call(sandbox, { method: 'POST', path, body: { decision }, timeoutMs: readTimeoutMs })
    },
    messages: (sandbox) => call(sandbox, { method: 'GET', path: '/messages', timeoutMs: readTimeoutMs }),
    logs: async (sandbox, tail) =>
      (
        await call<{ lines: string[] }>(sandbox, {
          method: 'GET',
          path: `/logs?tail=${tail}`,
          timeoutMs: probeTimeoutMs,
        })
      ).lines,
    async *events(sandbox, { after, signal }) {
      const path = `/events?after=${after}`
      try {
        const what: Call = { method: 'GET', path, timeoutMs: readTimeoutMs, signal }
        const response = await guarded(sandbox, path, () => send(sandbox, what))
        yield* entriesOf(response.body as AsyncIterable<Buffer>)
      } catch (error) {
        if (signal.aborted) return
        await guarded(sandbox, path, () => Promise.reject(error))
      }
      if (!signal.aborted) throw new SupervisorUnreachable(`the journal of sandbox ${sandbox.id} ended`)
    },
    [Symbol.asyncDispose]: () => agent.destroy(),
  }
}
