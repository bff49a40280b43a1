import { AppError } from '../domain/errors.ts'
import {
  abortTimeoutMs,
  bindTimeoutMs,
  checkpointTakeTimeoutMs,
  probeTimeoutMs,
  restoredBindTimeoutMs,
  restoreTimeoutMs,
} from '../domain/limits.ts'
import type { Archive } from '../domain/checkpoint.ts'
import type { PermissionDecision } from '../domain/permission.ts'
import type {
  BindReply,
  BindRequest,
  CheckpointManifest,
  Health,
  JournalEntry,
  RestoreReply,
  TurnRequest,
} from '../domain/supervisor-protocol.ts'
import type { TurnReply } from '../domain/turn.ts'
import { entriesOf } from './journal.ts'
import { SupervisorUnreachable, createSupervisorCalls, guarded, readTimeoutMs } from './supervisor-calls.ts'
import type { Call, SupervisorCalls, SupervisorTarget } from './supervisor-calls.ts'

/**
 * Talks to supervisors. Every call throws `SupervisorUnreachable`, or an `AppError` that repeats what the supervisor refused
 * (`conflict`: other epoch, another turn running, not bound; `upstream`: anything else).
 */
export type SupervisorClient = AsyncDisposable & {
  health(sandbox: SupervisorTarget): Promise<Health>
  /** `slow`: a checkpoint could not be restored before it, so the sandbox may have to clone anew first. */
  bind(sandbox: SupervisorTarget, body: BindRequest, how?: { slow: boolean }): Promise<BindReply>
  /** Idempotent by `turn_id`. */
  startTurn(sandbox: SupervisorTarget, body: TurnRequest): Promise<void>
  /** The turn then finishes as `cancelled`. Without an id: whichever runs. */
  interrupt(sandbox: SupervisorTarget, turnId?: string): Promise<void>
  /** No call of a model passes from now on, for that reason; null: they pass again. */
  refuseModel(sandbox: SupervisorTarget, reason: string | null): Promise<void>
  /** Answers the question `permission_asked` with that id; the same answer again is harmless. @throws AppError `not_found`: it is over */
  replyPermission(sandbox: SupervisorTarget, id: string, decision: PermissionDecision): Promise<void>
  /** What the session looks like now: the archive, and what is in it. Only between turns. */
  takeCheckpoint(
    sandbox: SupervisorTarget,
    options: { maxBytes: number; signal: AbortSignal },
  ): Promise<{ manifest: CheckpointManifest; archive: AsyncIterable<Uint8Array> }>
  /** Before bind; the same again is harmless. @throws AppError `conflict` when it is bound already */
  restoreCheckpoint(
    sandbox: SupervisorTarget,
    checkpoint: { id: string; archive: Archive; signal: AbortSignal },
  ): Promise<RestoreReply>
  /** The harness' own thread. */
  messages(sandbox: SupervisorTarget): Promise<TurnReply[]>
  logs(sandbox: SupervisorTarget, tail: number): Promise<string[]>
  /** The journal after `after`, then live. Ends only by the signal, or throws `SupervisorUnreachable`. */
  events(sandbox: SupervisorTarget, options: { after: number; signal: AbortSignal }): AsyncIterable<JournalEntry>
}

const CHECKPOINT = '/checkpoint'
const GZIP = { 'content-type': 'application/gzip' }

/** @throws AppError `upstream` for what is no manifest */
const manifestOf = (header: string | string[] | undefined): CheckpointManifest => {
  try {
    return JSON.parse(Buffer.from(String(header), 'base64url').toString()) as CheckpointManifest
  } catch (cause) {
    throw new AppError('upstream', 'the supervisor does not say what is in the checkpoint', { cause })
  }
}

/** A stream that breaks off is not the whole. */
async function* guardedPieces(sandbox: SupervisorTarget, body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const pieces = body[Symbol.asyncIterator]()
  try {
    for (;;) {
      const piece = await guarded(sandbox, CHECKPOINT, () => pieces.next())
      if (piece.done === true) return
      yield piece.value
    }
  } finally {
    await pieces.return?.()
  }
}

const checkpointCalls = ({
  call,
  send,
}: SupervisorCalls): Pick<SupervisorClient, 'takeCheckpoint' | 'restoreCheckpoint'> => ({
  async takeCheckpoint(sandbox, { maxBytes, signal }) {
    const body = { max_bytes: maxBytes }
    const what: Call = {
      method: 'POST',
      path: CHECKPOINT,
      body,
      timeoutMs: checkpointTakeTimeoutMs,
      signal,
      slow: true,
      stream: true,
    }
    const response = await guarded(sandbox, CHECKPOINT, () => send(sandbox, what))
    const manifest = manifestOf(response.headers['x-lap-checkpoint'])
    return { manifest, archive: guardedPieces(sandbox, response.body as AsyncIterable<Uint8Array>) }
  },
  restoreCheckpoint: (sandbox, { id, archive, signal }) => {
    const headers = { ...GZIP, 'content-length': String(archive.bytes), 'x-lap-checkpoint-id': id }
    const what: Call = {
      method: 'PUT',
      path: CHECKPOINT,
      headers,
      upload: archive,
      timeoutMs: restoreTimeoutMs,
      signal,
    }
    return call(sandbox, { ...what, slow: true })
  },
})

export const createSupervisorClient = (options: { masterKey: string }): SupervisorClient => {
  const calls = createSupervisorCalls(options)
  const { call, send } = calls
  return {
    health: (sandbox) => call(sandbox, { method: 'GET', path: '/healthz', timeoutMs: probeTimeoutMs }),
    bind: (sandbox, body, how) => {
      const isSlow = body.checkpoint !== undefined || how?.slow === true
      const what: Call = { method: 'POST', path: '/bind', body, timeoutMs: bindTimeoutMs }
      // Its harness takes up a conversation from disk first.
      return call(sandbox, isSlow ? { ...what, timeoutMs: restoredBindTimeoutMs, slow: true } : what)
    },
    startTurn: async (sandbox, body) =>
      void (await call(sandbox, { method: 'POST', path: '/turns', body, timeoutMs: readTimeoutMs })),
    interrupt: async (sandbox, turnId) => {
      const body = turnId === undefined ? {} : { turn_id: turnId }
      await call(sandbox, { method: 'POST', path: '/interrupt', body, timeoutMs: abortTimeoutMs })
    },
    refuseModel: async (sandbox, reason) => {
      await call(sandbox, { method: 'PUT', path: '/model-refusal', body: { reason }, timeoutMs: readTimeoutMs })
    },
    replyPermission: async (sandbox, id, decision) => {
      const path = `/permissions/${encodeURIComponent(id)}`
      await call(sandbox, { method: 'POST', path, body: { decision }, timeoutMs: readTimeoutMs })
    },
    ...checkpointCalls(calls),
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
        const what: Call = { method: 'GET', path, timeoutMs: readTimeoutMs, signal, stream: true }
        const response = await guarded(sandbox, path, () => send(sandbox, what))
        yield* entriesOf(response.body as AsyncIterable<Buffer>)
      } catch (error) {
        if (signal.aborted) return
        await guarded(sandbox, path, () => Promise.reject(error))
      }
      if (!signal.aborted) throw new SupervisorUnreachable(`the journal of sandbox ${sandbox.id} ended`)
    },
    [Symbol.asyncDispose]: () => calls[Symbol.asyncDispose](),
  }
}
