import type { SupervisorConfig } from '../../domain/supervisor-protocol.ts'
import { remakeWorkspace } from '../boot.ts'
import type { Harness } from '../harness.ts'
import type { Parts } from '../parts.ts'
import { refused } from '../refused.ts'
import { originAccess } from '../workspace.ts'
import { type Captures, type CapturesDeps, createCaptures } from './captures.ts'
import { type Restores, type RestoresDeps, createRestores } from './restores.ts'

export type CheckpointsDeps = {
  config: SupervisorConfig
  parts: Pick<Parts, 'workspace' | 'checkpoints' | 'env' | 'log' | 'lifecycle'>
  harness: Harness
  /** The commit of the clone. */
  clone: Pick<RestoresDeps, 'base' | 'setBase'>
  session: CapturesDeps['session']
  /** null until the sandbox is being bound. */
  epoch: () => number | null
}

/** The checkpoint that comes into a sandbox before it is bound, and those that leave it afterwards. */
export const createCheckpoints = (deps: CheckpointsDeps): { captures: Captures; restores: Restores } => {
  const { config, parts, harness, clone, session } = deps
  const own = { ...clone, dir: parts.checkpoints, workspace: parts.workspace, harness, harnessId: config.harness.id }
  const origin = originAccess(parts.env)
  return {
    captures: createCaptures({ ...own, env: parts.env, session }),
    restores: createRestores({
      ...own,
      env: origin.env,
      credentials: origin.args,
      remake: async () => clone.setBase(await remakeWorkspace({ ...parts, config })),
      check() {
        const { state } = parts.lifecycle.read()
        if (deps.epoch() !== null) throw refused('bound', 'the sandbox is bound to a session')
        if (state !== 'booted' && state !== 'warm') throw refused('not_ready', `the sandbox is ${state}`)
      },
      log: parts.log.write,
    }),
  }
}
