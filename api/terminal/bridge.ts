import type { WebSocket } from 'ws'
import { terminalBufferBytesMax, terminalPingEveryMs, terminalSilenceMaxMs } from '../../domain/limits.ts'
import { TTY_CLOSE, TTY_PROTOCOL, readTtyControl } from '../../domain/tty.ts'

/** A client and the terminal of a sandbox. */
export type Ends = { client: WebSocket; sandbox: WebSocket }

const resumedBytes = terminalBufferBytesMax / 4

/** What one end does not take, the other is not read for: a slow client is skipped for by the sandbox, and a slow program holds back who types. */
const pass = (from: WebSocket, to: WebSocket, data: Buffer | string): void => {
  // What is closing takes nothing any more, so it holds nobody up either.
  if (to.readyState !== to.OPEN) return
  to.send(data, { binary: typeof data !== 'string' }, () => {
    if (from.isPaused && to.bufferedAmount <= resumedBytes) from.resume()
  })
  if (to.bufferedAmount > terminalBufferBytesMax) from.pause()
}

/** Ends who gives no sign of life. Of one that is not being read none is expected: that is ended by its other end. */
const keepAlive = (socket: WebSocket): void => {
  let heardAt = performance.now()
  const alive = (): void => void (heardAt = performance.now())
  const timer = setInterval(() => {
    if (socket.isPaused) alive()
    else if (performance.now() - heardAt > terminalSilenceMaxMs) return socket.terminate()
    socket.ping()
  }, terminalPingEveryMs)
  for (const sign of ['message', 'ping', 'pong']) socket.on(sign, alive)
  socket.once('close', () => clearInterval(timer))
}

/** Clients of the reference get text, and what they send as text is typed unless it is a control message. */
const fromClient = ({ client, sandbox }: Ends, data: Buffer, onInput: (bytes: Buffer) => void): void => {
  onInput(data)
  pass(client, sandbox, data)
}

/**
 * Carries frames between the two, whatever sub-protocol the client speaks, until one of them closes.
 * @param onInput told of what is sent as keys
 * @returns resolves when both are closed; with the code that the sandbox had for it when it was the one that closed
 */
export const bridge = (ends: Ends, onInput: (bytes: Buffer) => void): void => {
  const { client, sandbox } = ends
  const plain = client.protocol !== TTY_PROTOCOL
  // A character may come in two frames.
  const decoder = new TextDecoder()
  client.on('message', (data: Buffer, isBinary) => {
    if (isBinary) return fromClient(ends, data, onInput)
    const text = data.toString('utf8')
    const control = readTtyControl(text)
    if (control === null && plain) return fromClient(ends, data, onInput)
    if (control === null) return client.close(TTY_CLOSE.unknownFrame, 'no control message of this protocol')
    if (control.type === 'ping' && plain) return
    pass(client, sandbox, text)
  })
  sandbox.on('message', (data: Buffer, isBinary) => {
    if (!plain) return pass(sandbox, client, isBinary ? data : data.toString('utf8'))
    if (isBinary) pass(sandbox, client, decoder.decode(data, { stream: true }))
  })
  for (const socket of [client, sandbox]) {
    socket.on('error', () => socket.terminate())
    keepAlive(socket)
  }
  client.once('close', () => {
    sandbox.close()
    // One that is not read does not hear the other say goodbye.
    sandbox.resume()
  })
  sandbox.resume()
}
