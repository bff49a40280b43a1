import type { IncomingMessage } from 'node:http'
import { WebSocket, WebSocketServer } from 'ws'
import { errorText } from '../../domain/errors.ts'
import { TTY_CLOSE, TTY_PROTOCOL, type TtyNotice, type TtySize, asTtySize, readTtyControl } from '../../domain/tty.ts'
import type { Terminal } from './terminal.ts'
import type { Upgrade } from './upgrade.ts'
import type { Viewer } from './viewers.ts'

/** A frame of somebody who types; a paste of more comes in several. */
const frameBytesMax = 1024 * 1024
/** What waits for a program that does not read, before its viewers are no longer read either. */
const inputBytesMax = 256 * 1024
const inputPollMs = 20
/** A viewer gives a sign of life every 10 s, if only a ping; one that gives none for so long is gone. */
const silenceMaxMs = 30_000
const silenceLookMs = 5_000

const sizeOf = ({ url = '/' }: IncomingMessage): TtySize | null => {
  const { searchParams } = new URL(url, 'http://supervisor')
  return asTtySize(Number(searchParams.get('cols')), Number(searchParams.get('rows')))
}

const viewerOf = (socket: WebSocket): Viewer => {
  const tell = (notice: TtyNotice): void => socket.send(JSON.stringify(notice))
  return {
    send: (bytes, onSent) => socket.send(bytes, { binary: true }, onSent),
    pendingBytes: () => socket.bufferedAmount,
    resized: (size) => tell({ type: 'size', ...size }),
    leave: (reason) => socket.close(TTY_CLOSE.again, reason),
  }
}

/** Ends what gives no sign of life. */
const watch = (socket: WebSocket): void => {
  let heardAt = performance.now()
  const alive = (): void => void (heardAt = performance.now())
  const timer = setInterval(() => {
    // Of one that is not read nothing is heard.
    if (socket.isPaused) alive()
    if (performance.now() - heardAt > silenceMaxMs) socket.terminate()
  }, silenceLookMs)
  socket
    .on('message', alive)
    .on('ping', alive)
    .once('close', () => clearInterval(timer))
}

/** A program that does not read what is typed: neither is it read from the network. */
const holdBack = (socket: WebSocket, terminal: Terminal): void => {
  if (socket.isPaused || terminal.pendingInputBytes() <= inputBytesMax) return
  socket.pause()
  const timer = setInterval(() => {
    if (socket.readyState === WebSocket.OPEN && terminal.pendingInputBytes() > inputBytesMax) return
    clearInterval(timer)
    socket.resume()
  }, inputPollMs)
}

const serve = (socket: WebSocket, terminal: Terminal, size: TtySize | null): void => {
  const viewer = viewerOf(socket)
  const hear = (bytes: Buffer, isBinary: boolean): void => {
    if (isBinary) {
      terminal.type(bytes)
      return holdBack(socket, terminal)
    }
    const control = readTtyControl(bytes.toString('utf8'))
    if (control === null) socket.close(TTY_CLOSE.unknownFrame, 'no control message of this protocol')
    else if (control.type === 'resize') terminal.resize({ cols: control.cols, rows: control.rows })
    else socket.send(JSON.stringify({ type: 'pong' } satisfies TtyNotice))
  }
  const guarded = (work: () => void): void => {
    try {
      work()
    } catch (error) {
      socket.close(1011, errorText(error).slice(0, 100))
    }
  }
  socket.on('error', () => socket.terminate())
  socket.once('close', () => terminal.detach(viewer))
  socket.on('message', (data, isBinary) => guarded(() => hear(data as Buffer, isBinary)))
  watch(socket)
  guarded(() => terminal.attach(viewer, size))
}

const sockets = new WebSocketServer({
  noServer: true,
  maxPayload: frameBytesMax,
  perMessageDeflate: false,
  handleProtocols: (offered) => (offered.has(TTY_PROTOCOL) ? TTY_PROTOCOL : false),
})

/** Lets somebody look at a terminal and type into it. */
export const serveTerminal = (terminal: Terminal, { request, socket, head }: Upgrade): void =>
  sockets.handleUpgrade(request, socket, head, (opened) => serve(opened, terminal, sizeOf(request)))
