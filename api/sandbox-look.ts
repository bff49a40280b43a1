import type { SandboxRow } from '../db/entities/sandbox.ts'
import { AppError, errorText, isAppError } from '../domain/errors.ts'
import { evidenceLogLines } from '../domain/limits.ts'
import type { Evidence } from '../sandbox/driver.ts'
import type { SandboxInspector } from '../sandbox/inspector.ts'
import { linesSince } from '../sandbox/log-lines.ts'
import type { ApiDeps } from './deps.ts'
import type { Probe } from './present/diagnosis.ts'
import type { Diagnosis } from './schemas/diagnose.ts'

type Asked = Pick<ApiDeps, 'supervisor' | 'inspector'>

const isOver = ({ state }: SandboxRow): boolean => ['gone', 'failed', 'ending'].includes(state)

/** Whether there is a supervisor to ask. */
const answers = (sandbox: SandboxRow | null): sandbox is SandboxRow =>
  sandbox !== null && sandbox.endpoint !== null && !isOver(sandbox)

/** Whom to ask about a sandbox beside its supervisor. Names are never used again: one that is gone need not be asked for. */
const inspectorOf = ({ inspector }: Asked, sandbox: SandboxRow): SandboxInspector | null =>
  sandbox.driver === 'kubernetes' && sandbox.state !== 'gone' ? inspector : null

/** @returns null when there is nothing to ask */
export const liveEvidence = async (asked: Asked, sandbox: SandboxRow | null): Promise<Evidence | null> =>
  sandbox === null ? null : ((await inspectorOf(asked, sandbox)?.inspect(sandbox.name)) ?? null)

export const probeOf = async ({ supervisor }: Asked, sandbox: SandboxRow | null): Promise<Probe> => {
  if (!answers(sandbox)) return null
  try {
    const health = await supervisor.health(sandbox)
    return { reachable: true, status: 200, state: health.state }
  } catch (error) {
    return { reachable: false, error: errorText(error) }
  }
}

const keptLines = (sandbox: SandboxRow | null): string[] | null => {
  const tail = sandbox?.evidence?.['logTail']
  return Array.isArray(tail) ? tail.map(String) : null
}

/** The pod's log, else the supervisor's; of a sandbox that is gone, the lines kept as evidence. */
export const logTail = async (
  asked: Asked,
  sandbox: SandboxRow | null,
  live: Evidence | null,
): Promise<Diagnosis['pod_logs_tail']> => {
  const shown = (lines: string[]) => ({ available: true, text: lines.slice(-evidenceLogLines).join('\n') })
  const refused = typeof live?.details?.['logs_error'] === 'string' ? live.details['logs_error'] : null
  if (live?.logTail !== undefined) return shown(live.logTail)
  if (answers(sandbox)) {
    try {
      return shown(await asked.supervisor.logs(sandbox, evidenceLogLines))
    } catch (error) {
      const told = errorText(error)
      return { available: false, error: refused === null ? told : `${refused}; ${told}` }
    }
  }
  const kept = keptLines(sandbox)
  if (kept !== null) return shown(kept)
  return { available: false, error: refused ?? 'there is no sandbox, and no lines of one were kept' }
}

type LogsWanted = { tailLines: number; sinceSeconds: number }

const supervisorLines = async ({ supervisor }: Asked, sandbox: SandboxRow, wanted: LogsWanted): Promise<string[]> => {
  try {
    const lines = await supervisor.logs(sandbox, wanted.tailLines)
    return linesSince(lines, Date.now() - wanted.sinceSeconds * 1_000)
  } catch (error) {
    throw new AppError('upstream', `the sandbox does not answer: ${errorText(error)}`, { cause: error })
  }
}

const whyNone = (sandbox: SandboxRow | null, sessionId: string): AppError => {
  if (sandbox === null) return new AppError('not_found', `session ${sessionId} has no sandbox`)
  return isOver(sandbox)
    ? new AppError('gone', `sandbox ${sandbox.name} is gone, and no lines of it were kept`)
    : new AppError('not_found', `sandbox ${sandbox.name} has no log yet`)
}

/**
 * The pod's log, else the supervisor's; of a sandbox that is gone, the lines kept as evidence.
 * @throws AppError `not_found`: nothing has been written yet; `gone`: nothing was kept; `upstream`, `unavailable`: it could not be read
 */
export const logLines = async (
  asked: Asked,
  { sandbox, sessionId }: { sandbox: SandboxRow | null; sessionId: string },
  wanted: LogsWanted,
): Promise<string[]> => {
  const inspector = sandbox === null ? null : inspectorOf(asked, sandbox)
  let failure: unknown = null
  try {
    if (sandbox !== null && inspector !== null) return await inspector.logs(sandbox.name, wanted)
  } catch (error) {
    if (!isAppError(error) || error.code !== 'not_found') failure = error
  }
  if (answers(sandbox)) return supervisorLines(asked, sandbox, wanted)
  const kept = keptLines(sandbox)
  if (kept !== null) return kept
  throw failure ?? whyNone(sandbox, sessionId)
}
