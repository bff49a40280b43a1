import { seconds, type Telemetry } from '../telemetry.ts'

/** A request was answered. `route` is the pattern (`/agents/{id}`), never the path. */
export const requestAnswered = (
  { log, metrics }: Telemetry,
  fields: { method: string; route: string; status: number; duration_ms: number },
): void => {
  const { method, route, status } = fields
  metrics.httpDuration.observe({ method, route, status: `${Math.floor(status / 100)}xx` }, seconds(fields.duration_ms))
  log[status >= 500 ? 'error' : 'info']({ event: 'request', ...fields }, `${method} ${route} ${status}`)
}

/**
 * An event stream was opened.
 * @returns call it once when the stream is over; `slow` if its client was dropped for taking too little
 */
export const streamOpened = (
  { log, metrics }: Telemetry,
  fields: { session_id: string },
): ((end: 'closed' | 'ended' | 'slow') => void) => {
  metrics.streamsOpen.inc()
  let open = true
  return (end) => {
    if (!open) return
    open = false
    metrics.streamsOpen.dec()
    if (end !== 'slow') return
    metrics.streamsDropped.inc()
    log.warn({ event: 'stream_dropped', ...fields }, 'event stream dropped: its client is too slow')
  }
}

/** A terminal was opened. @returns call it when it is over, with the code of the WebSocket's close */
export const terminalOpened = (
  { log, metrics }: Telemetry,
  fields: { session_id: string; sandbox_id: string },
): ((code: number) => void) => {
  metrics.terminalsOpen.inc()
  const openedAt = performance.now()
  log.info({ event: 'terminal_opened', ...fields }, 'terminal opened')
  return (close_code) => {
    metrics.terminalsOpen.dec()
    const duration_ms = Math.round(performance.now() - openedAt)
    log.info({ event: 'terminal_closed', ...fields, close_code, duration_ms }, `terminal closed: ${close_code}`)
  }
}
