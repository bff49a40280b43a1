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
  /** Session modes: one that never asks, and one that asks for whatever changes something. */
  modes?: { unattended: string; asking: string }
  /** Path below its home of the file in which it looks for instructions when a session is opened; for agents that take no system prompt over ACP. */
  instructionsFile?: string
}
