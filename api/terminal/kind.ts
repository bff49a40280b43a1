import { getAgentAny } from '../../db/agents.ts'
import type { SessionRow } from '../../db/entities/session.ts'
import { getSandbox } from '../../db/sandboxes.ts'
import { AppError } from '../../domain/errors.ts'
import type { ApiDeps } from '../deps.ts'
import { supportsTui } from '../present/agent.ts'

type Deps = Pick<ApiDeps, 'sql' | 'harnesses'>

/** That of its sandbox; before it has one, that of its agent. */
export const harnessOf = async ({ sql }: Deps, session: SessionRow): Promise<string | undefined> => {
  const sandbox = session.sandbox_id === null ? null : await getSandbox(sql, session.sandbox_id)
  return sandbox?.harness_id ?? (await getAgentAny(sql, session.agent_id))?.harness_id
}

export const noTerminal = (sessionId: string, harnessId: string | undefined): AppError =>
  new AppError('conflict', `session ${sessionId} has no terminal: ${harnessId} is used by messages`, {
    reason: 'no_terminal',
  })

/** @throws AppError `conflict` with `no_terminal` for a session with conversations */
export const needTerminal = async (deps: Deps, session: SessionRow): Promise<void> => {
  const harness = await harnessOf(deps, session)
  if (!supportsTui(deps, harness)) throw noTerminal(session.id, harness)
}

/** @throws AppError `conflict` with `terminal_session` for a session that people type into */
export const needConversation = async (deps: Deps, session: SessionRow): Promise<void> => {
  const harness = await harnessOf(deps, session)
  if (!supportsTui(deps, harness)) return
  const message = `session ${session.id} is a terminal (${harness}) and takes no messages: open ${session.id}/tty and type there`
  throw new AppError('conflict', message, { reason: 'terminal_session' })
}
