import { STATUS_CODES, type IncomingMessage, type Server } from 'node:http'
import type { Duplex } from 'node:stream'
import { type WebSocket, WebSocketServer } from 'ws'
import { AppError, isAppError } from '../../domain/errors.ts'
import { terminalFrameBytesMax, terminalsMax } from '../../domain/limits.ts'
import { TTY_PROTOCOL } from '../../domain/tty.ts'
import { isSupervisorUnreachable } from '../../sandbox/supervisor-calls.ts'
import { openSandboxTerminal } from '../../sandbox/terminal-client.ts'
import { requestAnswered } from '../../telemetry/events/http.ts'
import type { ApiDeps } from '../deps.ts'
import { answerOf } from '../middleware/errors.ts'
import { requestIdOf } from '../middleware/request-id.ts'
import { type Admitted, admit, readRequest } from './admission.ts'
import { attend } from './attendance.ts'

/** Of the path, in logs and metrics; the query has the ticket. */
const ROUTE = '/api/v1/managed_agents/sessions/:id/tty'

type Upgrade = { request: IncomingMessage; socket: Duplex; head: Buffer }

const refuse = (socket: Duplex, error: unknown, requestId: string): number => {
  const { status, headers, body } = answerOf(error, requestId)
  const text = JSON.stringify(body)
  const all = {
    ...headers,
    'X-Request-Id': requestId,
    'Content-Type': 'application/json; charset=utf-8',
    'Content-Length': String(Buffer.byteLength(text)),
    Connection: 'close',
  }
  const head = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
  // Whoever was refused might never hang up, and nobody else looks after what is no request any more.
  socket.once('finish', () => socket.destroy())
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${head.join('')}\r\n${text}`)
  return status
}

const reach = async (deps: ApiDeps, { session, sandbox }: Admitted, request: IncomingMessage): Promise<WebSocket> => {
  try {
    return await openSandboxTerminal(deps.config.masterKey, sandbox, readRequest(request).size)
  } catch (error) {
    if (!isSupervisorUnreachable(error)) throw error
    const options = { retryAfterSeconds: 1, cause: error }
    throw new AppError('unavailable', `the sandbox of session ${session.id} does not answer`, options)
  }
}

/**
 * Answers requests that want to become terminals; those that may not are refused in HTTP, before they have become one.
 * @param options.max terminals at once
 * @returns `drained` resolves when all of this process are closed, which the drain signal begins
 */
export const serveTerminals = (
  server: Server,
  deps: ApiDeps,
  { max = terminalsMax } = {},
): { drained: () => Promise<void> } => {
  const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: terminalFrameBytesMax,
    perMessageDeflate: false,
    handleProtocols: (offered) => (offered.has(TTY_PROTOCOL) ? TTY_PROTOCOL : false),
  })
  const attended = new Set<Promise<void>>()

  const isFull = (): boolean => deps.drain.aborted || attended.size >= max
  const full = (): AppError =>
    new AppError('unavailable', 'this process takes no more terminals', { retryAfterSeconds: 1 })

  const open = async ({ request, socket, head }: Upgrade): Promise<void> => {
    // Before its ticket is used up.
    if (isFull()) throw full()
    const admitted = await admit(deps, request)
    const sandbox = await reach(deps, admitted, request)
    const giveUp = (): void => sandbox.terminate()
    socket.once('close', giveUp)
    if (socket.destroyed) return giveUp()
    // Others may have come in meanwhile.
    if (isFull()) {
      giveUp()
      throw full()
    }
    sockets.handleUpgrade(request, socket, head, (client) => {
      // From here on what was typed gets through, also when whoever typed it is gone.
      socket.off('close', giveUp)
      const attending = attend(deps, admitted, { client, sandbox }).finally(() => attended.delete(attending))
      attended.add(attending)
    })
  }

  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const startedAt = performance.now()
    const requestId = requestIdOf(request.headers['x-request-id'])
    const log = deps.log.child({ request_id: requestId })
    socket.on('error', () => socket.destroy())
    const answered = (status: number): void =>
      requestAnswered(
        { log, metrics: deps.metrics },
        { method: 'GET', route: ROUTE, status, duration_ms: Math.round((performance.now() - startedAt) * 10) / 10 },
      )
    open({ request, socket, head }).then(
      () => answered(101),
      (error: unknown) => {
        if (!isAppError(error)) log.error({ err: error }, 'request failed')
        answered(refuse(socket, error, requestId))
      },
    )
  })
  return { drained: async () => void (await Promise.all(attended)) }
}
