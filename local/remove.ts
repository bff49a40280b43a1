import { setTimeout as sleep } from 'node:timers/promises'
import { AppError } from '../domain/errors.ts'
import { isAlive, type Process, processesOf, sandboxVariable, signalProcess } from './processes.ts'
import { discardDir, idIn, patchRecord, readRecord } from './records.ts'

/** Time for a supervisor to end its harness in order. */
const politeMs = 3_000
/** The kernel ends a killed process at once, unless it hangs in a device. */
const killMs = 2_000
const pollMs = 20
/** A process may start another while it is being ended; each look catches what the one before let through. */
const looksMax = 5

const awaitEnd = async (processes: Process[], limitMs: number): Promise<void> => {
  for (let waitedMs = 0; waitedMs < limitMs && processes.some(isAlive); waitedMs += pollMs) await sleep(pollMs)
}

/**
 * Ends every process of a sandbox: first politely, then not.
 * @throws AppError `unavailable`: something does not end
 */
export const endProcesses = async (variable: string, supervisor: Process | null): Promise<void> => {
  const members = await processesOf(variable, supervisor)
  if (members.length === 0) return
  // The supervisor ends what it started; the others get the signal only if there is no supervisor to do it.
  const leader = members.filter(({ pid }) => pid === supervisor?.pid)
  for (const member of leader.length > 0 ? leader : members) signalProcess(member, 'SIGTERM')
  await awaitEnd(leader.length > 0 ? leader : members, politeMs)
  for (let look = 0; look < looksMax; look++) {
    const left = await processesOf(variable, supervisor)
    const known = members.filter(isAlive)
    if (left.length === 0 && known.length === 0) return
    for (const member of [...left, ...known]) signalProcess(member, 'SIGKILL')
    await awaitEnd([...left, ...known], killMs)
  }
  throw new AppError('unavailable', `processes of the sandbox do not end (${variable})`)
}

/** Ends a sandbox' processes and deletes its directory. What is gone already is fine. */
export const removeSandbox = async (root: string, name: string): Promise<void> => {
  await patchRecord(root, name, { removing: true })
  const record = await readRecord(root, name)
  await endProcesses(sandboxVariable(record?.sandbox_id ?? idIn(name)), record?.supervisor ?? null)
  await discardDir(root, name)
}
