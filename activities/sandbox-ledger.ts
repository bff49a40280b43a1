import type { SandboxRow } from '../db/entities/sandbox.ts'
import { strandedSandboxes } from '../db/flow.ts'
import { endSandbox, liveSandboxes, recordedSandboxes, sandboxesToRemove } from '../db/sandboxes.ts'
import { ledgerGraceMs, sandboxReadyTimeoutMs } from '../domain/limits.ts'
import type { ListedSandbox } from '../sandbox/driver.ts'
import type { ActivityDeps } from './deps.ts'
import { isOld, type Look, repair } from './repair.ts'
import { inspected, mark, mayLive, noteFailure, removeEnded } from './sandbox.ts'
import { noteStartFailure } from './start-failure.ts'

export const noSandboxRepairs = { rows_gone: 0, objects_removed: 0, sandboxes_released: 0, sandboxes_marked: 0 }

/** Since when a row has been in its state, as far as it says. */
const since = (row: SandboxRow): Date => row.claimed_at ?? row.ready_at ?? row.created_at

/** A row says that a sandbox lives, and there is none, or a dead one. One that is being made has whoever makes it, and a deadline. */
const noteLost = async (deps: ActivityDeps, row: SandboxRow, listed: ListedSandbox | undefined): Promise<boolean> => {
  if (row.state === 'provisioning') {
    if (!isOld(row.created_at, sandboxReadyTimeoutMs + ledgerGraceMs)) return false
    const evidence = await deps.driver.inspect(row.name)
    return noteStartFailure(deps, row, { code: 'start_timeout', message: 'It never became ready', evidence })
  }
  if (listed?.alive === true) return false
  // It may have been made after the list was.
  if (mayLive(await inspected(deps, row.name))) return false
  return noteFailure(deps, row, await deps.driver.lossOf(row.name), row.state === 'warm' ? 'warm' : 'session')
}

/** Sandboxes whose place does not know what they are for: the worker that would have told it died, or could not reach it, or another told it late. */
const unmarked = (rows: SandboxRow[], listed: Map<string, ListedSandbox>): SandboxRow[] =>
  rows.filter((row) => {
    const found = listed.get(row.name)
    const isUp = row.state === 'warm' || (row.state === 'claimed' && row.session_id !== null)
    if (!isUp || !isOld(since(row), ledgerGraceMs) || found?.alive !== true) return false
    return !found.isMarked || found.sessionId !== row.session_id
  })

const markAll = async (look: Look, rows: SandboxRow[]): Promise<number> => {
  // Where nobody looks at marks none is missing.
  if (look.deps.driver.markClaimed === null) return 0
  return repair(look, rows, { of: ({ name }) => name, do: ({ id }) => mark(look.deps, id) })
}

/** Without a row that lives, and ours to remove. What does not say whose it is may be of another installation with the same settings. */
const strangersOf = async (deps: ActivityDeps, listed: ListedSandbox[], rows: SandboxRow[]) => {
  const known = new Set(rows.map(({ name }) => name))
  const strangers = listed.filter((one) => !known.has(one.name) && isOld(one.createdAt, ledgerGraceMs))
  const unsaid = strangers.filter(({ ours }) => ours === null).map(({ name }) => name)
  const recorded = unsaid.length === 0 ? new Set<string>() : await recordedSandboxes(deps.sql, unsaid)
  return strangers.filter(({ name, ours }) => ours ?? recorded.has(name))
}

/** Rows against sandboxes. */
export const compareSandboxes = async (look: Look): Promise<typeof noSandboxRepairs> => {
  const { deps } = look
  // Sandboxes first: a row is always written before its sandbox is made, so what has no row here has none.
  const listed = await deps.driver.list()
  const rows = await liveSandboxes(deps.sql)
  const byName = new Map(listed.map((one) => [one.name, one]))
  const of = ({ name }: { name: string }): string => name
  const rows_gone = await repair(
    look,
    rows.filter(({ state }) => state === 'provisioning' || state === 'warm' || state === 'claimed'),
    { of, do: (row) => noteLost(deps, row, byName.get(row.name)) },
  )
  const objects_removed = await repair(look, await strangersOf(deps, listed, rows), {
    of,
    do: async ({ name }) => {
      await deps.driver.remove(name)
      return true
    },
  })
  const sandboxes_released = await repair(look, await strandedSandboxes(deps.sql, ledgerGraceMs), {
    of,
    do: async ({ id }) => (await endSandbox(deps.sql, id)) !== null,
  })
  // Whoever ended them should have removed them by now.
  const overdue = (await sandboxesToRemove(deps.sql)).filter((row) => isOld(row.ended_at ?? since(row), ledgerGraceMs))
  await repair(look, overdue, {
    of,
    do: async ({ id }) => {
      await removeEnded(deps, id)
      return true
    },
  })
  const sandboxes_marked = await markAll(look, unmarked(rows, byName))
  return { rows_gone, objects_removed, sandboxes_released, sandboxes_marked }
}
