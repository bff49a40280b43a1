import type { McpServer } from './mcp.ts'
import type { PermissionDecision, PermissionPolicy, PermissionRequest } from './permission.ts'
import type { MessagePart, TurnReply, TurnUsage } from './turn.ts'

/**
 * The protocol between the platform and the supervisor inside a sandbox: HTTP/1.1 with a bearer token, and server-sent events.
 *
 *   GET  /healthz            200 Health (no token needed for the bare status code)
 *   POST /configure          Configuration → 200, a line of JSON (Health) for each change until it has booted or failed, an empty line every 5 s;
 *                            only where the supervisor was started without configuration, and until then all else is 503
 *   PUT  /checkpoint         the archive of a checkpoint → 200 RestoreReply; before bind only. `x-lap-checkpoint-id`: uuid; the same again → the same reply,
 *                            another one before bind → in its place; 409 `bound`, `not_ready`; 413; 422 an archive that is wrong or leads out
 *   POST /bind               BindRequest → 200 BindReply; same epoch again → same reply; another epoch → 409; 409 `no_checkpoint`
 *   POST /checkpoint         CheckpointRequest → 200, the archive (tar, gzip) with `x-lap-checkpoint`: CheckpointManifest as base64url of JSON;
 *                            409 `turn_running`, `not_bound`, `no_conversation` (a terminal). A turn that comes meanwhile waits for it
 *   POST /turns              TurnRequest → 202; idempotent by turn_id; 409 `turn_running` while another runs, 409 `not_bound`
 *   GET  /events?after=N     SSE: `id: <seq>`, `data: <JournalEntry>`; comment heartbeat every 5 s; never ends by itself
 *   POST /interrupt          {turn_id?} → 202; the turn finishes as `cancelled`
 *   PUT  /model-refusal      ModelRefusal → 200; holds until the next one
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
  /** Milliseconds since the harness last had to do with a model, 0 while it has; null: not in this session. Supervisors of an earlier version do not say. */
  model_idle_ms?: number | null
  /**
   * What this sandbox has used of models since bind and before its first turn, all together: in a terminal, where there are no turns, all of it. Supervisors of an
   * earlier version do not say.
   */
  usage_outside_turns?: TurnUsage
  /** Why no call of a model passes; null: they pass. Supervisors of an earlier version do not say. */
  model_refusal?: string | null
  journal_seq: number
  failure: { code: 'clone_failed' | 'setup_failed' | 'harness_exited'; message: string } | null
}

/** The one conversation of a terminal, as the reference calls it. */
export const TERMINAL_CONVERSATION = 'tty'

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
  /** Earlier conversation of a moved session; the new conversation is told it before its first turn. */
  history: History
  /**
   * The checkpoint that was restored here by `PUT /checkpoint`. Where the harness can take its conversation up, that is the one of the session, and
   * is told `since`, what was said after the checkpoint; else a new one is told the whole `history`.
   */
  checkpoint?: { id: string; since: History }
  /** The session had another sandbox before. */
  moved?: boolean
}
export type BindReply = {
  epoch: number
  harness_session_id: string
  /** Of a bind with a checkpoint. */
  restored?: Omit<RestoreReply, 'checkpoint_id'>
}

/** What was said, oldest first. */
export type History = { role: 'user' | 'assistant'; text: string }[]

/** Of an archive that comes out of a sandbox: its `CheckpointManifest`, as base64url of JSON. */
export const CHECKPOINT_HEADER = 'x-lap-checkpoint'
/** Of one that goes into a sandbox: its id. */
export const CHECKPOINT_ID_HEADER = 'x-lap-checkpoint-id'

/** Body of `POST /checkpoint`. `max_bytes`: of the archive; the largest files are left out first. */
export type CheckpointRequest = { max_bytes: number }

/** What a checkpoint holds, small enough for a header. */
export type CheckpointManifest = {
  version: 1
  harness: { id: string }
  /** Its name in the harness, which it keeps in every sandbox. */
  conversation: string
  /** Whether the harness' own state of it is in the archive. It is left out only when it alone is over the limit. */
  has_conversation: boolean
  /** The commit of the clone that the files differ from; null without a repository. */
  base_commit: string | null
  /** In the archive, of the workspace. */
  files: number
  /** In the archive, unpacked. */
  bytes: number
  /** What is not in it, largest first, and how many more there are. */
  omitted: CheckpointOmission[]
  omitted_more: number
}
export type CheckpointOmission = {
  /** Relative to the workspace. */
  path: string
  /** `too_large`: no checkpoint takes a file of that size. `over_limit`: all together were. `leads_out`: a link out of the workspace. */
  reason: 'too_large' | 'unreadable' | 'over_limit' | 'leads_out'
  bytes: number
}

/** Answer to `PUT /checkpoint`. */
export type RestoreReply = {
  checkpoint_id: string
  /** The harness can take the conversation up. */
  conversation: boolean
  /** Of the workspace that were written or deleted. */
  files: number
  /** What is not as it was. `path`: relative to the workspace; `.git` for commits, branches and index. */
  problems: { path: string; reason: string }[]
}

/** Body of `PUT /model-refusal`: why no call of a model passes any more, in words for whoever uses the harness; null: they pass again. */
export type ModelRefusal = { reason: string | null }

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
