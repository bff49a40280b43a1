import type { IncomingMessage } from 'node:http'
import { useTicket } from '../../db/terminal-tickets.ts'
import type { SandboxRow } from '../../db/entities/sandbox.ts'
import type { SessionRow } from '../../db/entities/session.ts'
import { getSandbox } from '../../db/sandboxes.ts'
import { AppError } from '../../domain/errors.ts'
import { isId } from '../../domain/names.ts'
import { type TtySize, asTtySize } from '../../domain/tty.ts'
import type { ApiDeps } from '../deps.ts'
import { findLiveSession } from '../find.ts'
import { callerOf, showsMasterKey } from '../middleware/auth.ts'
import { noTerminal } from './kind.ts'
import { supportsTui } from '../present/agent.ts'

/** What a request for a terminal says. */
export type TerminalRequest = { sessionId: string; ticket: string; size: TtySize | null }

const PATH = /^\/api\/v1\/managed_agents\/sessions\/([^/?]*)\/tty(?:\?|$)/

/** Whether a request wants to become a terminal; all others are answered as usual. */
export const wantsTerminal = ({ url = '', headers }: IncomingMessage): boolean =>
  headers.upgrade?.toLowerCase() === 'websocket' && PATH.test(url)

/** The reference's clients call a ticket a token. */
export const readRequest = ({ url = '' }: IncomingMessage): TerminalRequest => {
  const { searchParams } = new URL(url, 'http://api')
  const [, sessionId = ''] = PATH.exec(url) ?? []
  return {
    sessionId,
    ticket: searchParams.get('ticket') ?? searchParams.get('token') ?? '',
    size: asTtySize(Number(searchParams.get('cols')), Number(searchParams.get('rows'))),
  }
}

const hostOf = (url: string | undefined): string | null => URL.parse(url ?? '')?.host ?? null

/**
 * A browser says which page opens a WebSocket, and asks nobody whether that may; other clients say nothing.
 * @throws AppError `forbidden_origin`
 */
const checkOrigin = ({ config }: Pick<ApiDeps, 'config'>, { headers }: IncomingMessage): void => {
  const { origin, host } = headers
  if (origin === undefined) return
  const from = hostOf(origin)
  if (from !== null && (from === host || from === hostOf(config.baseUrl))) return
  throw new AppError('unauthorized', 'terminals are not opened from pages of other sites', {
    reason: 'forbidden_origin',
  })
}

const NOBODY = '00000000-0000-0000-0000-000000000000'

/** One answer for every ticket that is wrong, used, expired or of another session, also of one that there is not. */
const unauthorized = (): AppError =>
  new AppError('unauthorized', 'unauthorized: this needs a ticket of POST …/tty-ticket, which opens one terminal once')

/** Who says who it is, beside the ticket, must be who got it. @throws AppError `unauthorized` */
const checkTicket = async (
  deps: Pick<ApiDeps, 'config' | 'sql'>,
  { sessionId, ticket }: TerminalRequest,
  { headers: { authorization } }: IncomingMessage,
): Promise<void> => {
  const { masterKey } = deps.config
  const isKnown =
    authorization === undefined || authorization === `Bearer ${ticket}` || showsMasterKey(authorization, masterKey)
  const given = { ticket, sessionId: isId(sessionId) ? sessionId : NOBODY, caller: callerOf(masterKey) }
  if (!isKnown || !(await useTicket(deps.sql, given))) throw unauthorized()
}

/** @throws AppError `gone`, `conflict`, `unavailable` */
const sandboxOf = async (deps: Pick<ApiDeps, 'sql' | 'harnesses'>, session: SessionRow): Promise<SandboxRow> => {
  if (session.status === 'creating')
    throw new AppError('conflict', `session ${session.id} is not ready yet: ${session.phase ?? session.status}`, {
      reason: 'not_ready',
    })
  const sandbox = session.sandbox_id === null ? null : await getSandbox(deps.sql, session.sandbox_id)
  if (sandbox?.state !== 'claimed' || session.bound_attempt !== session.attempt)
    throw new AppError('unavailable', `session ${session.id} is moving to another sandbox`, { retryAfterSeconds: 1 })
  if (!supportsTui(deps, sandbox.harness_id)) throw noTerminal(session.id, sandbox.harness_id)
  return sandbox
}

export type Admitted = { session: SessionRow; sandbox: SandboxRow }

/** @throws AppError why not, `unauthorized` before anything is told of the session */
export const admit = async (
  deps: Pick<ApiDeps, 'config' | 'sql' | 'harnesses'>,
  request: IncomingMessage,
): Promise<Admitted> => {
  checkOrigin(deps, request)
  const wanted = readRequest(request)
  await checkTicket(deps, wanted, request)
  const session = await findLiveSession(deps, wanted.sessionId)
  return { session, sandbox: await sandboxOf(deps, session) }
}
