import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import http from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { AppError, type ErrorCode, errorText, isAppError } from '../domain/errors.ts'
import { CHECKPOINT_HEADER, CHECKPOINT_ID_HEADER, hasBooted } from '../domain/supervisor-protocol.ts'
import type { Configuration } from '../domain/supervisor-protocol.ts'
import type { Configuring } from './configuring.ts'
import { readBody, tokenOf, writeSlowly } from './http.ts'
import type { Journal } from './journal.ts'
import {
  asBindRequest,
  asCheckpointId,
  asCheckpointRequest,
  asInterruptRequest,
  asModelRefusal,
  asPermissionAnswer,
  asTurnRequest,
} from './requests.ts'
import type { Sandbox } from './sandbox.ts'
import type { Supervisor } from './supervisor.ts'
import { type Upgrade, refuse, wantsTerminal } from './terminal/upgrade.ts'

const heartbeatMs = 5_000
const PERMISSIONS = '/permissions/'
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

const refusalOf = (error: unknown): { status: number; body: object } => {
  const known = isAppError(error) ? error : null
  const code = (known?.cause as { code?: string } | undefined)?.code ?? known?.code ?? 'internal'
  const details = known?.details
  const status = STATUS[known?.code ?? 'internal'] ?? 500
  return { status, body: { error: { code, message: errorText(error), ...(details === undefined ? {} : { details }) } } }
}

const sendError = (response: ServerResponse, error: unknown): void => {
  const { status, body } = refusalOf(error)
  send(response, status, body)
}

/** What anybody gets to hear to whom the sandbox does not know what to answer; also one that was made anew under an old name: whom its callers mean is gone. */
const notConfigured = (): AppError =>
  new AppError('unavailable', 'the sandbox is not configured', { cause: { code: 'not_configured' } })

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

/** One `Health` a line, now and at each change, until it has booted or failed. */
const streamBoot = (sandbox: Sandbox, purpose: Configuration['purpose'], response: ServerResponse): void => {
  response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' })
  const heartbeat = setInterval(() => response.write('\n'), heartbeatMs)
  let said = ''
  const tell = (): void => {
    const health = sandbox.health()
    if (health === null) return
    const now = `${health.state} ${health.phase}`
    if (now !== said) response.write(`${JSON.stringify(health)}\n`)
    said = now
    if (health.state !== 'failed' && !hasBooted(purpose, health.state)) return
    stop()
    response.end()
  }
  const forget = sandbox.onChange(tell)
  const stop = (): void => {
    clearInterval(heartbeat)
    forget()
  }
  response.once('close', stop)
  tell()
}

/** What it is made from is gone when it has been read, or nobody reads it any more. */
const sendCheckpoint = async (supervisor: Supervisor, maxBytes: number, response: ServerResponse): Promise<void> => {
  const gone = new AbortController()
  response.once('close', () => gone.abort())
  const { file, bytes, manifest, discard } = await supervisor.capture(maxBytes, gone.signal)
  try {
    const told = Buffer.from(JSON.stringify(manifest)).toString('base64url')
    const type = { 'content-type': 'application/gzip', 'content-length': bytes }
    response.writeHead(200, { ...type, [CHECKPOINT_HEADER]: told })
    await pipeline(createReadStream(file), response)
  } finally {
    await discard()
  }
}

const answerBound = async (
  { supervisor, url }: { supervisor: Supervisor; url: URL },
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> => {
  switch (`${request.method} ${url.pathname}`) {
    case 'POST /bind':
      return send(response, 200, await supervisor.bind(asBindRequest(await parsed(request))))
    case 'POST /turns':
      await supervisor.startTurn(asTurnRequest(await parsed(request)))
      return send(response, 202, {})
    case 'POST /checkpoint':
      return sendCheckpoint(supervisor, asCheckpointRequest(await parsed(request)).max_bytes, response)
    case 'PUT /checkpoint':
      return send(
        response,
        200,
        await supervisor.restore(asCheckpointId(request.headers[CHECKPOINT_ID_HEADER]), request),
      )
    case 'POST /interrupt':
      supervisor.interrupt(asInterruptRequest(await parsed(request)).turn_id)
      return send(response, 202, {})
    case 'PUT /model-refusal':
      supervisor.refuseModel(asModelRefusal(await parsed(request)).reason)
      return send(response, 200, {})
    case 'GET /events':
      return streamJournal(supervisor.journal, cursor(url.searchParams.get('after') ?? '0'), response)
    case 'GET /messages':
      return send(response, 200, await supervisor.messages())
    case 'GET /logs':
      return send(response, 200, { lines: supervisor.log.tail(cursor(url.searchParams.get('tail') ?? '200')) })
    default:
      if (request.method === 'POST' && url.pathname.startsWith(PERMISSIONS)) {
        const id = url.pathname.slice(PERMISSIONS.length)
        await supervisor.replyPermission(id, asPermissionAnswer(await parsed(request)).decision)
        return send(response, 200, {})
      }
      throw new AppError('not_found', `${request.method} ${url.pathname} is not known here`)
  }
}

const USABLE = new Set<string | undefined>(['booted', 'warm', 'bound'])

/** Its library is loaded where there are terminals. */
const openTerminal = async (sandbox: Sandbox, tokenSha256: Buffer, upgrade: Upgrade): Promise<void> => {
  upgrade.socket.on('error', () => upgrade.socket.destroy())
  if (tokenOf(upgrade.request, tokenSha256) === null) throw new AppError('unauthorized', 'wrong token')
  const supervisor = sandbox.supervisor()
  if (supervisor === null) throw notConfigured()
  const terminal = supervisor.terminal()
  const { serveTerminal } = await import('./terminal/connections.ts')
  serveTerminal(terminal, upgrade)
}

export type ServerOptions = {
  host: string
  port: number
  /** Of the bearer token that callers must show. */
  tokenSha256: Buffer
  /** Without it nobody can configure the sandbox. */
  configuring?: (port: number) => Configuring
}

export type Server = {
  port: number
  /** Resolves when everyone who waits for the end of the boot has been told of it. */
  told: () => Promise<void>
  /** Leaves them without an end: what a sandbox that is being ended says of its boot is not why it did not boot. */
  hangUp: () => void
}

/** Listens, also while the sandbox has not been started. */
export const listen = async (sandbox: Sandbox, options: ServerOptions): Promise<Server> => {
  const waiting = new Set<ServerResponse>()
  let configure: Configuring | undefined
  let hungUp = false

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const url = new URL(request.url ?? '/', 'http://supervisor')
    const token = tokenOf(request, options.tokenSha256)
    const health = sandbox.health()
    if (token === null) {
      if (url.pathname !== '/healthz') throw new AppError('unauthorized', 'wrong token')
      return void response.writeHead(USABLE.has(health?.state) ? 200 : 503).end()
    }
    if (configure !== undefined && request.method === 'POST' && url.pathname === '/configure') {
      const { purpose } = await configure(await parsed(request), token)
      if (hungUp) throw new AppError('unavailable', 'the sandbox is being ended')
      waiting.add(response)
      response.once('close', () => waiting.delete(response))
      return streamBoot(sandbox, purpose, response)
    }
    if (url.pathname === '/healthz' && health !== null) return send(response, 200, health)
    const supervisor = sandbox.supervisor()
    if (supervisor === null) throw notConfigured()
    return answerBound({ supervisor, url }, request, response)
  }

  const server = http.createServer({ shouldUpgradeCallback: wantsTerminal }, (request, response) => {
    answer(request, response).catch((error: unknown) => {
      if (response.headersSent) response.destroy()
      else sendError(response, error)
    })
  })
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    openTerminal(sandbox, options.tokenSha256, { request, socket, head }).catch((error: unknown) =>
      refuse(socket, refusalOf(error)),
    )
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port, options.host, resolve)
  })
  const { port } = server.address() as AddressInfo
  configure = options.configuring?.(port)
  return {
    port,
    told: async () => {
      await Promise.all([...waiting].map((response) => once(response, 'close')))
    },
    hangUp() {
      hungUp = true
      for (const response of waiting) response.destroy()
    },
  }
}
