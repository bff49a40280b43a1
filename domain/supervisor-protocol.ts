import type { McpServer } from './mcp.ts'
import type { PermissionDecision, PermissionPolicy, PermissionRequest } from './permission.ts'
import type { MessagePart, TurnReply, TurnUsage } from './turn.ts'

/**
 * The protocol between the platform and the supervisor inside a sandbox: HTTP/1.1 with a bearer token, and server-sent events.
 *
 *   GET  /healthz            200 Health (no token needed for the bare status code)
 *   POST /configure          Configuration → 200, a line of JSON (Health) for each change until it has booted or failed, an empty line every 5 s;
 *                            only where the supervisor was started without configuration, and until then all else is 503
 *   POST /bind               BindRequest → 200 BindReply; same epoch again → same reply; another epoch → 409
 *   POST /turns              TurnRequest → 202; idempotent by turn_id; 409 `turn_running` while another runs, 409 `not_bound`
 *   GET  /events?after=N     SSE: `id: <seq>`, `data: <JournalEntry>`; comment heartbeat every 5 s; never ends by itself
 *   POST /interrupt          {turn_id?} → 202; the turn finishes as `cancelled`
 *   POST /permissions/{id}   PermissionAnswer → 200; same decision again → 200; another one → 409 `already_replied`; 404: nobody asked, or the turn is over
 *   GET  /messages           200 the harness' thread `[{info, parts}]`
 *   GET  /logs?tail=N        200 {lines: string[]}
 */

/** `booting`: cloning, installing, starting. `booted`: usable. `warm`: booted and through one throwaway turn. */
export type SupervisorState = 'booting' | 'booted' | 'warm' | 'bound' | 'failed'
export type BootPhase = 'cloning_repo' | 'installing_deps' | 'harness_listening' | 'waiting_harness'

export type Health = {
  state: SupervisorState
  phase: BootPhase | null
  sandbox_id: string
  template_hash: string
  epoch: number | null
  harness: { id: string; running: boolean; pid: number | null; restarts: number }
  running_turn: string | null
  journal_seq: number
  failure: { code: 'clone_failed' | 'setup_failed' | 'harness_exited'; message: string } | null
}

export type BindRequest = {
  epoch: number
  session: { id: string; agent_id: string; title: string | null }
  /** Session environment, for the tools of the harness. */
  env: Record<string, string>
  /** System prompt, or null. */
  prompt: string | null
  model: string
  gateway: { base_url: string; api_key: string }
  /** Files written into the workspace before the first turn; paths relative to it. */
  files: { path: string; content_base64: string }[]
  /** Tools from outside. Their headers stay in the supervisor: the harness reaches them over the loopback. */
  mcp?: McpServer[]
  /** Without it everything is allowed. */
  permissions?: PermissionPolicy
  /** Earlier conversation of a moved session, oldest first; the new conversation is told it before its first turn. */
  history: { role: 'user' | 'assistant'; text: string }[]
}
export type BindReply = { epoch: number; harness_session_id: string }

/** Body of `POST /permissions/{id}`. */
export type PermissionAnswer = { decision: PermissionDecision }

export type TurnRequest = { turn_id: string; parts: MessagePart[]; model?: string }

export type TurnResult = {
  status: 'done' | 'failed' | 'cancelled'
  reply: TurnReply | null
  error: { code: 'harness_exited' | 'gateway_unreachable' | 'harness_error'; message: string } | null
  usage: TurnUsage
}

/** The journal starts at bind; `seq` starts at 1 and has no gap, also over a crash of harness or supervisor. */
export type JournalEntry = { seq: number; at: string } & (
  | { type: 'turn_started'; turn_id: string }
  | { type: 'harness'; turn_id: string | null; event: { type: string; properties: Record<string, unknown> } }
  /** The harness waits, however long, until `permission_replied` with that id. */
  | { type: 'permission_asked'; turn_id: string | null; permission: PermissionRequest }
  /** `turn_ended`: interrupted, or the harness died, before anybody answered. */
  | {
      type: 'permission_replied'
      turn_id: string | null
      permission_id: string
      decision: PermissionDecision
      by: 'user' | 'turn_ended'
    }
  | { type: 'turn_finished'; turn_id: string; result: TurnResult }
  | { type: 'harness_exited'; turn_id: string | null; code: number | null; signal: string | null; tail: string[] }
  | { type: 'harness_restarted' }
)

/**
 * What a supervisor is started with: one JSON document on its standard input, so that nothing of it shows in a process list or an environment.
 *
 * It keeps in `dir`: `workspace/` (the clone), `home/`, `journal.jsonl`, and `state.json`, a `SupervisorStateFile` replaced at each change.
 */
export type SupervisorConfig = {
  sandbox_id: string
  template_hash: string
  /** `pool` ends in `warm`; `session` in `booted`, as soon as it can be used. */
  purpose: 'pool' | 'session'
  /** Bearer token that callers must show. */
  token: string
  /** Port 0: any free one; see `state.json`. */
  listen: { host: string; port: number }
  dir: string
  /** `dir`: absolute path of the folder with the harness' `manifest.ts`. */
  harness: { id: string; dir: string }
  /** Empty: the workspace starts empty. */
  repo_url: string
  branch: string
  setup_command: string | null
  /** Plain environment of set-up command, harness and tools. */
  env: Record<string, string>
}

/**
 * What a supervisor is told by `POST /configure` that was started without configuration, as in a pod: whoever may read the pod must not read this. Its address,
 * directory, harnesses and the hash of its token are in its environment. The same again is answered the same; another one is refused with 409.
 */
export type Configuration = Omit<SupervisorConfig, 'token' | 'listen' | 'dir' | 'harness'> & { harness: { id: string } }

const BOOTED: Record<SupervisorConfig['purpose'], ReadonlySet<SupervisorState>> = {
  session: new Set(['booted', 'warm', 'bound']),
  pool: new Set(['warm', 'bound']),
}

/** Whether its start has come to its end, and well. */
export const hasBooted = (purpose: SupervisorConfig['purpose'], state: SupervisorState): boolean =>
  BOOTED[purpose].has(state)

/** A supervisor that cannot boot writes `failed` with the reason and exits with 1. */
export type SupervisorStateFile = {
  state: SupervisorState
  phase: BootPhase | null
  /** null until it listens. */
  port: number | null
  pid: number
  failure: Health['failure']
}
