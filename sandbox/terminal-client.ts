import { WebSocket } from 'ws'
import { connectTimeoutMs, terminalFrameBytesMax } from '../domain/limits.ts'
import { TTY_PROTOCOL, type TtySize } from '../domain/tty.ts'
import { SupervisorUnreachable, type SupervisorTarget } from './supervisor-calls.ts'
import { sandboxToken } from './token.ts'

/** A sandbox that is there answers at once, also on a machine that is busy. */
const handshakeTimeoutMs = 5 * connectTimeoutMs

/**
 * Opens the terminal of a sandbox. What it says is not read before `resume` is called.
 * @param size changes that of the terminal; null leaves it
 * @throws SupervisorUnreachable when nobody answers there, or not as the supervisor of a terminal that is bound
 */
export const openSandboxTerminal = async (
  masterKey: string,
  sandbox: SupervisorTarget,
  size: TtySize | null,
): Promise<WebSocket> => {
  if (sandbox.endpoint === null) throw new SupervisorUnreachable(`sandbox ${sandbox.id} has no address`)
  const query = size === null ? '' : `?cols=${size.cols}&rows=${size.rows}`
  const socket = new WebSocket(`${sandbox.endpoint.replace(/^http/, 'ws')}/tty${query}`, [TTY_PROTOCOL], {
    headers: { authorization: `Bearer ${sandboxToken(masterKey, sandbox.id)}` },
    handshakeTimeout: handshakeTimeoutMs,
    // A sandbox is trusted no more than a client; ws by itself takes 100 MiB.
    maxPayload: terminalFrameBytesMax,
    perMessageDeflate: false,
  })
  return new Promise((resolve, reject) => {
    socket.once('open', () => {
      // At once: its first frames may have come with the answer.
      socket.pause()
      resolve(socket)
    })
    // A refusal is an error here, too: "Unexpected server response: 409".
    socket.once('error', (error) =>
      reject(new SupervisorUnreachable(`/tty of sandbox ${sandbox.id}: ${error.message}`, { cause: error })),
    )
  })
}
