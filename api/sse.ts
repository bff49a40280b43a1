import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { streamDrainTimeoutMs, streamHeartbeatMs, streamRetryMs } from '../domain/limits.ts'
import { streamOpened } from '../telemetry/events/http.ts'
import type { ApiDeps } from './deps.ts'
import type { Context } from './http.ts'

/** One frame: `data` as one line of JSON; `id` only for entries of the log, so that control frames never move a client's cursor. */
export type Frame = { id?: number; data: unknown }

/** The writing end of a stream of server-sent events. */
export type EventStream = {
  /** Waits while the client is slow; a client that takes nothing for `streamDrainTimeoutMs` is dropped and resumes by id. */
  send(frames: Frame[]): Promise<void>
  /** Aborted when the client is gone or the process is ending. */
  readonly signal: AbortSignal
}

/** Many streams send the same frames, so each is written out once. */
const texts = new WeakMap<Frame, string>()

const textOf = (frame: Frame): string => {
  const known = texts.get(frame)
  if (known !== undefined) return known
  const { id, data } = frame
  const text = `${id === undefined ? '' : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`
  texts.set(frame, text)
  return text
}

/** Small enough that a client which takes anything takes one in time. */
const PIECE_BYTES = 64 * 1_024

/** @returns `slow`: the client took nothing for `drainTimeoutMs`; `cut`: the signal came amid the text */
export const writeSlowly = async (
  res: ServerResponse,
  text: string,
  { signal, drainTimeoutMs }: { signal: AbortSignal; drainTimeoutMs: number },
): Promise<'whole' | 'cut' | 'slow'> => {
  const bytes = Buffer.from(text)
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
    if (signal.aborted || res.writableEnded) return at === 0 ? 'whole' : 'cut'
    if (res.write(bytes.subarray(at, at + PIECE_BYTES))) continue
    try {
      await once(res, 'drain', { signal: AbortSignal.any([signal, AbortSignal.timeout(drainTimeoutMs)]) })
    } catch {
      if (!signal.aborted) return 'slow'
    }
  }
  return 'whole'
}

const openResponse = ({ res }: Context): AbortController => {
  const gone = new AbortController()
  res.once('close', () => gone.abort())
  // A client that vanished shows as an error of the socket; it resumes from the log, so there is nothing to report.
  res.on('error', () => gone.abort())
  res.writeHead(200, {
    'Content-Type': 'text/event-stream; charset=utf-8',
    'Cache-Control': 'no-cache, no-transform',
    'X-Accel-Buffering': 'no',
  })
  res.flushHeaders()
  return gone
}

/**
 * Answers with a stream and keeps it alive by comment frames; ends it when `produce` returns. When the process is ending the client is
 * told when to come back.
 */
export const stream = async (
  ctx: Context,
  { drain, metrics }: Pick<ApiDeps, 'drain' | 'metrics'>,
  sessionId: string,
  produce: (stream: EventStream) => Promise<void>,
): Promise<void> => {
  ctx.respond = false
  const { res } = ctx
  const gone = openResponse(ctx)
  const closed = streamOpened({ log: ctx.state.log, metrics }, { session_id: sessionId })
  const heartbeat = setInterval(() => {
    if (!res.writableNeedDrain) res.write(': heartbeat\n\n')
  }, streamHeartbeatMs)
  const signal = AbortSignal.any([gone.signal, drain])
  let isCut = false
  const send = async (frames: Frame[]): Promise<void> => {
    const text = frames.map(textOf).join('')
    const written = await writeSlowly(res, text, { signal, drainTimeoutMs: streamDrainTimeoutMs })
    isCut ||= written === 'cut'
    if (written !== 'slow') return
    closed('slow')
    res.destroy()
  }
  try {
    await produce({ signal, send })
  } catch (error) {
    // Nobody is left to be told what a stream that is over anyway failed of.
    if (!signal.aborted) throw error
  } finally {
    clearInterval(heartbeat)
    // Behind half a frame it would end that one, and the client would take it for whole. An unfinished one it leaves out.
    if (!gone.signal.aborted) res.end(drain.aborted && !isCut ? `retry: ${streamRetryMs}\n\n` : undefined)
    closed(gone.signal.aborted ? 'closed' : 'ended')
  }
}
