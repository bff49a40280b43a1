import { evidenceLogLines } from '../domain/limits.ts'
import type { FailureCode } from '../domain/session.ts'
import type { Evidence, SandboxFailure } from '../sandbox/driver.ts'
import { oomKillsSoFar } from './memory.ts'
import { isAlive } from './processes.ts'
import { dirOf, readLog, readRecord, readState, type SandboxRecord } from './records.ts'

/** How a supervisor ended; known only to the process that started it. */
export type Exit = { code: number | null; signal: NodeJS.Signals | null; oomKills: number | null }

export const inspectSandbox = async (root: string, name: string, exit: Exit | undefined): Promise<Evidence> => {
  const [record, state, logTail] = await Promise.all([
    readRecord(root, name),
    readState(root, name),
    readLog(root, name, evidenceLogLines),
  ])
  const ended = exit === undefined ? {} : { exitCode: exit.code, signal: exit.signal }
  if (record === null) return { exists: false, alive: false, ...ended, ...(logTail === null ? {} : { logTail }) }
  const alive = isAlive(record.supervisor)
  return {
    exists: true,
    alive,
    state: alive ? (state?.state ?? 'starting') : 'exited',
    ...ended,
    startedAt: record.created_at,
    ...(logTail === null ? {} : { logTail }),
    details: {
      pid: record.supervisor.pid,
      phase: state?.phase ?? null,
      supervisor_state: state?.state ?? null,
      port: state?.port ?? null,
      dir: dirOf(root, name),
    },
  }
}

const heapExhausted = (logTail: string[] | undefined): boolean =>
  logTail?.some((line) => line.includes('JavaScript heap out of memory')) ?? false

const killedForMemory = (exit: Exit | undefined, record: SandboxRecord | null): boolean =>
  exit?.signal === 'SIGKILL' &&
  exit.oomKills !== null &&
  record !== null &&
  record.oom_kills !== null &&
  exit.oomKills > record.oom_kills

const howItEnded = (exit: Exit | undefined): string => {
  if (exit === undefined) return 'ended'
  return exit.signal === null ? `ended with code ${exit.code}` : `was ended by ${exit.signal}`
}

/** Why a sandbox whose supervisor is gone, or says that it failed, did not start. */
export const failureOf = async (root: string, name: string, exit: Exit | undefined): Promise<SandboxFailure> => {
  const [evidence, record, state] = await Promise.all([
    inspectSandbox(root, name, exit),
    readRecord(root, name),
    readState(root, name),
  ])
  const failure = (code: FailureCode, message: string): SandboxFailure => ({ code, message, evidence })
  if (state?.failure) return failure(state.failure.code, state.failure.message)
  if (record === null) return failure('sandbox_lost', 'The sandbox was removed while it was starting.')
  if (heapExhausted(evidence.logTail) || killedForMemory(exit, record))
    return failure('oom_killed', 'The sandbox ran out of memory.')
  return failure('harness_exited', `The supervisor ${howItEnded(exit)} before the sandbox was ready.`)
}

/** Why a sandbox that was in use, or waited for it, is there no more. */
export const lossOf = async (root: string, name: string, exit: Exit | undefined): Promise<SandboxFailure> => {
  const [evidence, record] = await Promise.all([inspectSandbox(root, name, exit), readRecord(root, name)])
  if (heapExhausted(evidence.logTail) || killedForMemory(exit, record))
    return { code: 'oom_killed', message: 'The sandbox ran out of memory.', evidence }
  const how = record === null ? 'was removed' : howItEnded(exit)
  return { code: 'sandbox_lost', message: `The supervisor ${how}.`, evidence }
}

export const exitNow = (code: number | null, signal: NodeJS.Signals | null): Exit => ({
  code,
  signal,
  oomKills: oomKillsSoFar(),
})
