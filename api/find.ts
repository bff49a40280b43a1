import type { SessionRow } from '../db/entities/session.ts'
import { getSession } from '../db/sessions.ts'
import { AppError } from '../domain/errors.ts'
import { isId } from '../domain/names.ts'
import { isEnded } from '../domain/session.ts'
import type { ApiDeps } from './deps.ts'

/** @throws AppError `not_found`, also for what is no id at all */
export const findSession = async ({ sql }: Pick<ApiDeps, 'sql'>, id: string | undefined): Promise<SessionRow> => {
  const session = id !== undefined && isId(id) ? await getSession(sql, id) : null
  if (session === null) throw new AppError('not_found', `session ${id} not found`)
  return session
}

/** @throws AppError `not_found`, or `gone` with the reason when the session has ended */
export const findLiveSession = async (deps: Pick<ApiDeps, 'sql'>, id: string | undefined): Promise<SessionRow> => {
  const session = await findSession(deps, id)
  if (isEnded(session.status))
    throw new AppError('gone', `session ${session.id} has ended: ${session.end_reason ?? session.status}`)
  return session
}
