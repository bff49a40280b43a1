import type { PermissionPolicy } from '../../domain/permission.ts'

/** How an agent that speaks the Agent Client Protocol over its standard input and output is started and used. Nothing of a session is in it. */
export type AcpAgent = {
  /** Program and arguments. They show in the process list: no secrets. */
  command: [string, ...string[]]
  /** Added to the environment of its processes. */
  env: Record<string, string>
  /** Written below its home before each start, by path. */
  files?: Record<string, string>
  /** `_meta` of `session/new` and `session/load`. */
  sessionMeta?: Record<string, unknown>
  /**
   * For sessions in which something has to be asked for: another `_meta`, and files below its home, by path, written before the session is opened or loaded. What
   * the workspace itself would have the agent run is asked for by nobody, so it is left out here. `cwd`: the workspace in other words, for an agent that trusts
   * whatever path it is told.
   */
  ruled?: {
    sessionMeta?: Record<string, unknown>
    files: (permissions: PermissionPolicy) => Record<string, string>
    cwd?: string
  }
  /** Title of every session; for agents that would ask the model for one. */
  title?: string
  /** Session modes: one that never asks, and one that asks for whatever changes something. */
  modes?: { unattended: string; asking: string }
  /** Path below its home of the file in which it looks for instructions when a session is opened; for agents that take no system prompt over ACP. */
  instructionsFile?: string
  /**
   * Where below its home it keeps a session: files and folders, `*` for any name. Those of one workspace are those of another one, in the same order.
   * Without it no conversation can be taken to another sandbox.
   */
  sessionFiles?: (session: string, workspace: string) => string[]
  /** Field of each line of these files that names the workspace, where the agent loads a session in that one only. */
  workspaceField?: string
}
