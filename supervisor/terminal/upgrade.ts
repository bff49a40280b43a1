import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'

/** A request that wants to become a WebSocket, before it has been answered. */
export type Upgrade = { request: IncomingMessage; socket: Duplex; head: Buffer }

/** Whether a request wants to become a terminal; all others are answered as usual. */
export const wantsTerminal = ({ url = '', headers }: IncomingMessage): boolean =>
  headers.upgrade?.toLowerCase() === 'websocket' && /^\/tty(?:\?|$)/.test(url)

/** Answers in the place of an upgrade. */
export const refuse = (socket: Duplex, { status, body }: { status: number; body: object }): void => {
  const text = JSON.stringify(body)
  const head = `HTTP/1.1 ${status} Refused\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n`
  // Whoever was refused might never hang up.
  socket.once('finish', () => socket.destroy())
  socket.end(head + text)
}
