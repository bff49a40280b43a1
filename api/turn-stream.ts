import type { SessionRow } from '../db/entities/session.ts'
import type { TurnRow } from '../db/entities/turn.ts'
import { getTurn } from '../db/turns.ts'
import type { SessionEvent } from '../domain/events.ts'
import { AppError } from '../domain/errors.ts'
import type { ApiDeps } from './deps.ts'
import { followLog } from './follow.ts'
import type { Context } from './http.ts'
import { errorBody } from './middleware/errors.ts'
import { presentWrapped } from './present/stream.ts'
import { stream } from './sse.ts'
import type { Frame } from './sse.ts'
import { replyOf } from './turns.ts'

/** Turns run one after the other, so what the harness says between a turn's start and its end belongs to it. */
const createTurnFilter = (turnId: string) => {
  let inside = false
  return (event: SessionEvent): 'show' | 'skip' | 'over' => {
    const own = event.data['turn_id'] === turnId
    if (event.type === 'turn.started') inside = own
    if (event.type === 'turn.finished' && own) return 'over'
    return inside && event.type === 'harness' ? 'show' : 'skip'
  }
}

const lastFrame = async (deps: ApiDeps, turnId: string, requestId: string): Promise<Frame> => {
  try {
    const turn = await getTurn(deps.sql, turnId)
    if (turn === null) throw new AppError('gone', 'the session was removed')
    return { data: { type: 'done', turn_id: turnId, reply: replyOf(turn) } }
  } catch (error) {
    const { error: message, code } = errorBody(error, requestId)
    return { data: { type: 'error', message, code, turn_id: turnId } }
  }
}

/** Streams one turn: `ready`, what the harness says, then `done` with the reply or `error`. Ids are those of the log. */
export const streamTurn = async (
  ctx: Context,
  deps: ApiDeps,
  session: SessionRow,
  { turn, after }: { turn: TurnRow; after: number },
): Promise<void> => {
  await stream(ctx, deps, session.id, async ({ send, signal }) => {
    await send([{ data: { type: 'ready', turn_id: turn.id } }])
    const sort = createTurnFilter(turn.id)
    for await (const batch of followLog(deps, session.id, after, signal)) {
      const frames: Frame[] = []
      let over = false
      for (const event of batch) {
        const verdict = sort(event)
        if (verdict === 'show') frames.push(presentWrapped(event))
        over ||= verdict === 'over'
      }
      await send(frames)
      if (over) break
    }
    if (!signal.aborted) await send([await lastFrame(deps, turn.id, ctx.state.requestId)])
  })
}
