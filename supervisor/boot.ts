import type { SupervisorConfig } from '../domain/supervisor-protocol.ts'
import { errorText } from '../domain/errors.ts'
import type { Harness } from './harness.ts'
import type { Lifecycle } from './lifecycle.ts'
import type { Log } from './log.ts'
import type { Loopback } from './loopback.ts'
import { WARM_UP_PROMPT } from './warm-up.ts'
import { BootError, cloneInto, commitOf, emptyFolder, runSetup } from './workspace.ts'

export type BootDeps = {
  config: SupervisorConfig
  workspace: string
  env: Record<string, string>
  harness: Harness
  loopback: Loopback
  lifecycle: Lifecycle
  log: Log
  /** Uses the supervisor's own server once, for the same reason as the throwaway turn. */
  rehearse: () => Promise<void>
}

type Workspace = Pick<BootDeps, 'config' | 'workspace' | 'env' | 'log'>

/** @returns the commit that was cloned; null without a repository */
const prepareWorkspace = async (
  { config, workspace, env, log }: Workspace,
  onPhase: (phase: 'cloning_repo' | 'installing_deps') => void,
): Promise<string | null> => {
  onPhase('cloning_repo')
  await cloneInto(workspace, { repo_url: config.repo_url, branch: config.branch, env }, log)
  const base = config.repo_url === '' ? null : await commitOf(workspace, env)
  if (config.setup_command === null) return base
  onPhase('installing_deps')
  await runSetup(workspace, config.setup_command, env, log)
  return base
}

/** Clones and sets up once more, in place of whatever is there. @returns the commit @throws BootError */
export const remakeWorkspace = async (deps: Workspace): Promise<string | null> => {
  await emptyFolder(deps.workspace)
  return prepareWorkspace(deps, () => undefined)
}

const startHarness = async (harness: Harness): Promise<void> => {
  try {
    await harness.start()
  } catch (error) {
    throw new BootError('harness_exited', errorText(error))
  }
}

/** One whole turn with a tool, answered by the loopback: a harness that was only started takes seconds for its first. */
const warmUp = async ({ harness, loopback, log }: BootDeps): Promise<void> => {
  const throwaway = await harness.open()
  const { error } = await harness.prompt(throwaway, [{ type: 'text', text: WARM_UP_PROMPT }])
  if (error !== null) throw new BootError('harness_exited', `the warm-up turn failed: ${error}`)
  await harness.close(throwaway)
  log.write(`warmed up${loopback.warmedUp() ? '' : ', without a tool'}`)
}

const known = (error: unknown): BootError =>
  error instanceof BootError ? error : new BootError('harness_exited', errorText(error))

export type Booted = {
  /** A conversation that is empty and nobody's, opened ahead because that is the one slow step of a bind. */
  spare: string
  /** The commit that was cloned; null without a repository. */
  base: string | null
}

/**
 * Clones, sets up and starts, the harness at the same time as the clone; for the pool, warms as well.
 * @throws BootError, after it has entered `failed`
 */
export const boot = async (deps: BootDeps): Promise<Booted> => {
  const { config, harness, lifecycle } = deps
  try {
    const workspace = prepareWorkspace(deps, (phase) => lifecycle.enter({ phase }))
    const [base] = await Promise.all([workspace, startHarness(harness)])
    lifecycle.enter({ phase: 'harness_listening' })
    lifecycle.enter({ phase: 'waiting_harness' })
    if (config.purpose === 'pool') await warmUp(deps)
    const spare = await harness.open()
    if (config.purpose === 'pool')
      // It only saves time, so that it fails is no reason to fail.
      await deps.rehearse().catch((error: unknown) => deps.log.write(`not rehearsed: ${errorText(error)}`))
    lifecycle.enter({ state: config.purpose === 'pool' ? 'warm' : 'booted', phase: null })
    return { spare, base }
  } catch (error) {
    const failure = known(error)
    deps.log.write(`failed: ${failure.code}: ${failure.message}`)
    lifecycle.fail(failure)
    throw failure
  }
}
