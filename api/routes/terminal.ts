import { randomBytes } from 'node:crypto'
import { addTicket } from '../../db/terminal-tickets.ts'
import { terminalTicketTtlMs } from '../../domain/limits.ts'
import type { ApiDeps } from '../deps.ts'
import { findLiveSession } from '../find.ts'
import { callerOf } from '../middleware/auth.ts'
import { CodedError } from '../middleware/errors.ts'
import { terminalPath } from '../present/session.ts'
import { route } from '../route.ts'
import type { Route } from '../route.ts'
import { TerminalQuery, TerminalTicket } from '../schemas/terminal.ts'
import { needTerminal } from '../terminal/kind.ts'

const BASE = '/api/v1/managed_agents/sessions/:id'
const tag = 'terminal'

const ticket = (deps: ApiDeps): Route =>
  route({
    method: 'post',
    path: `${BASE}/tty-ticket`,
    operationId: 'createTerminalTicket',
    tag,
    summary: 'Get a ticket for the terminal of a session',
    description:
      'Good for one opening of `tty`, for 30 s, for this session and whoever got it. 409 with `no_terminal` for a session that is used by messages.',
    replies: [{ status: 200, description: 'The ticket', schema: TerminalTicket }],
    errors: ['not_found', 'conflict', 'gone'],
    async handle(ctx, { params }) {
      const session = await findLiveSession(deps, params.id)
      await needTerminal(deps, session)
      const ticket = randomBytes(32).toString('base64url')
      const caller = callerOf(deps.config.masterKey)
      const expiresAt = await addTicket(deps.sql, { ticket, sessionId: session.id, caller, ttlMs: terminalTicketTtlMs })
      ctx.set('Cache-Control', 'no-store')
      ctx.body = { ticket, expires_at: expiresAt.toISOString(), url: `${terminalPath(session.id)}?ticket=${ticket}` }
    },
  })

/** What comes as an upgrade is answered by `api/terminal/server.ts`. */
const open = (): Route =>
  route({
    method: 'get',
    path: `${BASE}/tty`,
    operationId: 'openTerminal',
    tag,
    summary: 'Open the terminal of a session',
    description:
      'A WebSocket, with `ticket` in the place of the key. Wrong, used and expired tickets, and sessions that there are not, are all answered with the same 401 before the upgrade. With a good ticket: 410 when the session has ended, 409 with `not_ready` while it is being created, 503 while it moves. Sub-protocol `lap.tty.v1`: binary frames are bytes, text frames control: `{"type":"resize","cols","rows"}` and `{"type":"ping"}` from the client, `{"type":"size","cols","rows"}` and `{"type":"pong"}` to it. Without it, text frames carry the output, and input that is not such a resize or ping. Closed with 1012: open it again with a new ticket; 4410: the session has ended, for the reason given.',
    query: TerminalQuery,
    replies: [{ status: 101, description: 'The terminal: first the screen as it is, then what is written to it' }],
    errors: ['conflict', 'gone'],
    handle(ctx) {
      ctx.set('Upgrade', 'websocket')
      throw new CodedError('bad_request', 'upgrade_required', 'a terminal is opened as a WebSocket', 426)
    },
  })

export const terminalRoutes = (deps: ApiDeps): Route[] => [ticket(deps), open()]
