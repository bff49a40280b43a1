/**
 * Terminals over WebSockets: what supervisor, API and clients agree on.
 *
 * With the sub-protocol `lap.tty.v1` binary frames carry bytes, both ways, and text frames are control: one JSON object each.
 *
 *   client → server   {"type":"resize","cols":100,"rows":30}   {"type":"ping"}
 *   server → client   {"type":"size","cols":100,"rows":30}     {"type":"pong"}
 */
export const TTY_PROTOCOL = 'lap.tty.v1'

/** Why a terminal is closed. Codes of 4000 and more are ours, the others those of RFC 6455 and its registry. */
export const TTY_CLOSE = {
  /** The process or the sandbox behind it has gone, or is about to: open it again, with a new ticket. */
  again: 1012,
  /** A frame that means nothing. */
  unknownFrame: 1008,
  /** The session has ended, and says why. */
  ended: 4410,
} as const

export type TtySize = { cols: number; rows: number }
export type TtyControl = ({ type: 'resize' } & TtySize) | { type: 'ping' }
export type TtyNotice = ({ type: 'size' } & TtySize) | { type: 'pong' }

export const TTY_SIZE_DEFAULT: TtySize = { cols: 100, rows: 30 }
/** A screen is held in memory, cell by cell. */
export const TTY_COLS_MAX = 1_000
export const TTY_ROWS_MAX = 500

const within = (value: unknown, max: number): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= max

/** @returns null unless both are whole numbers that a screen may have */
export const asTtySize = (cols: unknown, rows: unknown): TtySize | null =>
  within(cols, TTY_COLS_MAX) && within(rows, TTY_ROWS_MAX) ? { cols, rows } : null

/** @returns null for text that is no control message */
export const readTtyControl = (text: string): TtyControl | null => {
  if (!text.startsWith('{')) return null
  let message: unknown
  try {
    message = JSON.parse(text)
  } catch {
    return null
  }
  if (typeof message !== 'object' || message === null) return null
  const { type, cols, rows } = message as Record<string, unknown>
  if (type === 'ping') return { type }
  const size = type === 'resize' ? asTtySize(cols, rows) : null
  return size === null ? null : { type: 'resize', ...size }
}

/** What terminals send by themselves: that they have gained or lost the focus, and where the mouse moves. */
const UNASKED = /^(?:␛\[[IO]|␛\[<(?:3[5-9]|[4-6]\d);\d+;\d+[Mm])+$/
const UNASKED_CHARS_MAX = 256
const ESC = '\u001b'

/** Whether somebody does something: a key, a paste, a click. @param bytes what a terminal has sent */
export const isTyping = (bytes: Uint8Array): boolean =>
  bytes.length > UNASKED_CHARS_MAX ||
  (bytes.length > 0 && !UNASKED.test(String.fromCharCode(...bytes).replaceAll(ESC, '␛')))
