import type { MessagePart, TurnReply, TurnUsage } from './turn.ts'

/**
 * The protocol between the platform and the supervisor inside a sandbox: HTTP/1.1 with a bearer token, and server-sent events.
 *
 *   GET  /healthz            200 Health (no token needed for the bare status code)
 *   POST /bind               BindRequest → 200 BindReply; same epoch again → same reply; another epoch → 409
 *   POST /turns              TurnRequest → 202; idempotent by turn_id; 409 `turn_running` while another runs, 409 `not_bound`
 *   GET  /events?after=N     SSE: `id: <seq>`, `data: <JournalEntry>`; comment heartbeat every 5 s; never ends by itself
 *   POST /interrupt          {turn_id?} → 202; the turn finishes as `cancelled`
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
  /** Earlier conversation of a moved session, oldest first; the new conversation is told it without answering. */
  history: { role: 'user' | 'assistant'; text: string }[]
}
export type BindReply = { epoch: number; harness_session_id: string }

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
  | { type: 'turn_finished'; turn_id: string; result: TurnResult }
  | { type: 'harness_exited'; turn_id: string | null; code: number | null; signal: string | null; tail: string[] }
  | { type: 'harness_restarted' }
)
