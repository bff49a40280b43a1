import { randomUUID } from 'node:crypto'
import type { SessionRow } from '../db/entities/session.ts'
import type { TurnRow } from '../db/entities/turn.ts'
import type { SandboxRow } from '../db/entities/sandbox.ts'
import { bodyHash, enqueueTurn, getTurn, getTurnStatus } from '../db/turns.ts'
import { AppError, errorText } from '../domain/errors.ts'
import type { TurnRequest } from '../domain/supervisor-protocol.ts'
import { isTurnOver } from '../domain/turn.ts'
import type { TurnReply } from '../domain/turn.ts'
import type { ApiDeps } from './deps.ts'
import { waitFor } from './follow.ts'
import type { Context } from './http.ts'
import { CodedError } from './middleware/errors.ts'
import type { MessageSend } from './schemas/message.ts'
import { partsOf } from './session-input.ts'
import { needConversation } from './terminal/kind.ts'

/** Longest wait of a blocking message; a turn may go on for longer and its reply stays in the thread. */
const turnWaitMaxMs = 24 * 60 * 60_000

/** The workflow does the same a moment later (turns are idempotent by id), so a failure here is only worth a line. */
const startEarly = async (ctx: Context, deps: ApiDeps, sandbox: SandboxRow, turn: TurnRequest): Promise<void> => {
  try {
    await deps.supervisor.startTurn(sandbox, turn)
  } catch (error) {
    ctx.state.log.debug({ turn_id: turn.turn_id, reason: errorText(error) }, 'the turn was not started early')
  }
}

/**
 * Stores a message; it runs when those before it are over and the session is ready.
 * @throws AppError `gone` for an ended session, `conflict` for a key used with another body and for a terminal, `rate_limited` when too many wait
 */
export const sendMessage = async (
  ctx: Context,
  deps: ApiDeps,
  session: SessionRow,
  input: { body: MessageSend; idempotencyKey: string | null },
): Promise<TurnRow> => {
  await needConversation(deps, session)
  const parts = partsOf(input.body)
  const { turn, existing, startNow } = await enqueueTurn(deps.sql, {
    sessionId: session.id,
    turnId: randomUUID(),
    parts,
    model: session.model,
    idempotencyKey: input.idempotencyKey,
    bodyHash: input.idempotencyKey === null ? null : bodyHash(input.body),
  })
  ctx.set('Lap-Turn-Id', turn.id)
  if (existing) {
    ctx.set('Idempotent-Replayed', 'true')
    return turn
  }
  if (startNow !== null) void startEarly(ctx, deps, startNow, { turn_id: turn.id, parts, model: session.model })
  deps.outbox.kick()
  return turn
}

/** How a turn that is over is answered: its reply, or the error that says what became of it. */
export const replyOf = (turn: TurnRow): TurnReply => {
  if (turn.status === 'done' && turn.reply !== null) return turn.reply
  const why = turn.error?.message
  if (turn.error?.code === 'session_ended') throw new AppError('gone', why ?? 'the session has ended')
  if (turn.error?.code === 'limit_reached')
    throw new CodedError('conflict', 'limit_reached', `the message was not run: ${why}`)
  if (turn.status === 'interrupted')
    throw new CodedError(
      'conflict',
      'turn_interrupted',
      `the turn was interrupted${why === undefined ? '' : `: ${why}`}. It was not run again; send the message again if you want that.`,
    )
  if (turn.status === 'cancelled')
    throw new CodedError('conflict', 'turn_cancelled', `the turn was cancelled${why === undefined ? '' : `: ${why}`}`)
  throw new CodedError('upstream', turn.error?.code ?? 'harness_error', why ?? 'the harness did not reply')
}

/** Waits for a turn however long it takes; the client's connection does not hold it. */
export const turnOver = async (deps: ApiDeps, turn: TurnRow, signal: AbortSignal): Promise<TurnRow> => {
  const either = AbortSignal.any([signal, deps.drain])
  const over = await waitFor(deps, turn.session_id, { signal: either, timeoutMs: turnWaitMaxMs }, async () => {
    // Woken by each piece of news while it streams: its parts and its reply are read once.
    const status = await getTurnStatus(deps.sql, turn.id)
    return status === null || isTurnOver(status) ? { turn: await getTurn(deps.sql, turn.id) } : null
  })
  if (over === null)
    throw new AppError(
      'unavailable',
      'this process is ending; the turn goes on. Repeat with the same Idempotency-Key.',
      {
        retryAfterSeconds: 1,
      },
    )
  if (over.turn === null) throw new AppError('gone', 'the session was removed')
  return over.turn
}
