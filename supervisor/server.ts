import http from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { AppError, type ErrorCode, errorText, isAppError } from '../domain/errors.ts'
import { readBody, sameSecret, writeSlowly } from './http.ts'
import type { Journal } from './journal.ts'
import { asBindRequest, asInterruptRequest, asTurnRequest } from './requests.ts'
import type { Supervisor } from './supervisor.ts'

const heartbeatMs = 5_000
const entriesPerWrite = 200

const STATUS: Partial<Record<ErrorCode, number>> = {
  bad_request: 400,
  unauthorized: 401,
  not_found: 404,
  conflict: 409,
  too_large: 413,
  invalid: 422,
  unavailable: 503,
}

const send = (response: ServerResponse, status: number, body: object): void => {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

const sendError = (response: ServerResponse, error: unknown): void => {
  const known = isAppError(error) ? error : null
  const code = (known?.cause as { code?: string } | undefined)?.code ?? known?.code ?? 'internal'
  const details = known?.details
  const status = STATUS[known?.code ?? 'internal'] ?? 500
  send(response, status, { error: { code, message: errorText(error), ...(details === undefined ? {} : { details }) } })
}

const parsed = async (request: IncomingMessage): Promise<unknown> => {
  const text = (await readBody(request)).toString('utf8')
  try {
    return JSON.parse(text === '' ? '{}' : text) as unknown
  } catch {
    throw new AppError('bad_request', 'the body is not JSON')
  }
}

/** The journal after `after`, then what comes; ends with the connection. A slow reader is not buffered for: it reads from disk. */
const streamJournal = async (journal: Journal, after: number, response: ServerResponse): Promise<void> => {
  const closed = new AbortController()
  response.once('close', () => closed.abort())
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
  response.write(': journal\n\n')
  const heartbeat = setInterval(() => response.write(': alive\n\n'), heartbeatMs)
  try {
    for (let seq = after; !closed.signal.aborted;) {
      const lines = journal.read(seq, entriesPerWrite)
      if (lines.length === 0) {
        await journal.grown(closed.signal)
        continue
      }
      seq = lines.at(-1)!.seq
      const text = lines.map((line) => `id: ${line.seq}\ndata: ${line.json}\n\n`).join('')
      await writeSlowly(response, text)
    }
  } finally {
    clearInterval(heartbeat)
  }
}

const cursor = (text: string | null): number => {
  if (text === null || !/^\d{1,15}$/.test(text)) throw new AppError('bad_request', 'after must be a number')
  return Number(text)
}

const USABLE = new Set(['booted', 'warm', 'bound'])

export const listen = async (
  supervisor: Supervisor,
  options: { host: string; port: number; token: string },
): Promise<{ port: number; close(): void }> => {
  const bearer = `Bearer ${options.token}`

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? '/', 'http://supervisor')
    const known = sameSecret(request.headers.authorization, bearer)
    if (url.pathname === '/healthz') {
      const health = supervisor.health()
      const status = USABLE.has(health.state) ? 200 : 503
      return known ? send(response, 200, health) : void response.writeHead(status).end()
    }
    if (!known) throw new AppError('unauthorized', 'wrong token')
    switch (`${request.method} ${url.pathname}`) {
      case 'POST /bind':
        return send(response, 200, await supervisor.bind(asBindRequest(await parsed(request))))
      case 'POST /turns':
        supervisor.startTurn(asTurnRequest(await parsed(request)))
        return send(response, 202, {})
      case 'POST /interrupt':
        await supervisor.interrupt(asInterruptRequest(await parsed(request)).turn_id)
        return send(response, 202, {})
      case 'GET /events':
        return streamJournal(supervisor.journal, cursor(url.searchParams.get('after') ?? '0'), response)
      case 'GET /messages':
        return send(response, 200, await supervisor.messages())
      case 'GET /logs':
        return send(response, 200, { lines: supervisor.log.tail(cursor(url.searchParams.get('tail') ?? '200')) })
      default:
        throw new AppError('not_found', `${request.method} ${url.pathname} is not known here`)
    }
  }

  const server = http.createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      if (response.headersSent) response.destroy()
      else sendError(response, error)
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port, options.host, resolve)
  })
  const { port } = server.address() as AddressInfo
  supervisor.listening(port)
  return {
    port,
    close() {
      server.close()
      server.closeAllConnections()
    },
  }
}
