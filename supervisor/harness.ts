import type { McpServer } from '../domain/mcp.ts'
import type { PermissionDecision, PermissionPolicy, PermissionRequest } from '../domain/permission.ts'
import type { MessagePart, TurnReply } from '../domain/turn.ts'
import type { AcpAgent } from './acp/agent.ts'
import type { Terminal, TerminalProgram } from './terminal/terminal.ts'

/** What the harness says on its bus, in the form of opencode's: `message.updated`, `message.part.updated`, `message.part.delta`, `session.idle`, … */
export type HarnessEvent = { type: string; properties: Record<string, unknown> }

/** How a harness ended without being told to; `tail`: the last lines it wrote, oldest first. */
export type HarnessExit = { code: number | null; signal: string | null; tail: string[] }

/** What a harness is made from. Nothing of a session is in it. */
export type HarnessContext = {
  /** The folder of its manifest, where its packages are installed. */
  dir: string
  /** Where it works. May not exist before the first `open`. */
  workspace: string
  home: string
  /** The whole environment of its processes. */
  env: Record<string, string>
  /** The loopback gateway, base URL ending in `/v1`; the one model it knows; the stub key it takes. */
  gateway: { url: string; key: string; model: string }
  /** Whether the gateway has answered a throwaway turn with a tool to its end. */
  isWarmedUp(): boolean
  /** Every event of its bus, of all its conversations. */
  onEvent(event: HarnessEvent): void
  /** A tool call waits until `reply` is called with the id of this. */
  onPermission(conversation: string, request: PermissionRequest): void
  /** Its process ended by itself. */
  onExit(exit: HarnessExit): void
  log(line: string): void
}

/** What a session brings to the conversation that it is given. */
export type SessionSettings = {
  /** System prompt, beside the harness' own. */
  system: string | null
  mcp: McpServer[]
  permissions: PermissionPolicy
  /** Whether it has lost another sandbox. */
  moved?: boolean
}

/**
 * A coding harness inside a sandbox. Conversations are named by ids of its own and survive a restart.
 * Every call rejects with `HarnessGone` when the process ends meanwhile.
 */
export type Harness = {
  /** Starts it; resolves when a conversation can be opened. Also called after it has exited. */
  start(): Promise<void>
  /** Process id, or null while none runs. For one without a process: null, always. */
  pid(): number | null
  /** A conversation that nobody has used, and in which everything is allowed. */
  open(): Promise<string>
  /**
   * Gives such a conversation to a session, or one that was adopted: that goes on where it was. Does not wait for what takes longer than milliseconds;
   * `ready` does.
   */
  bind(conversation: string, settings: SessionSettings): Promise<void>
  /**
   * Resolves when what `bind` or a restart has begun is done, so that a prompt reaches the model at once. What failed is begun again by the next call.
   * Rejects with what the harness says of a failure.
   */
  ready(conversation: string): Promise<void>
  /** Adds to the conversation without having it answered. */
  tell(conversation: string, text: string): Promise<void>
  /** Runs one turn to its end. All its events have been given to `onEvent` when it resolves. From this call on `cancel` ends it. */
  prompt(conversation: string, parts: MessagePart[]): Promise<{ error: string | null }>
  /** The running turn ends soon after. */
  cancel(conversation: string): Promise<void>
  /** Answers a question. One that is over by now is passed over. */
  reply(permissionId: string, decision: PermissionDecision): Promise<void>
  /** The whole thread, oldest first. */
  messages(conversation: string): Promise<TurnReply[]>
  /** Writes what it keeps of a conversation, between two turns, into an empty folder; nothing where it keeps nothing. */
  save(conversation: string, folder: string): Promise<void>
  /**
   * Takes up a conversation that another sandbox has saved, before it is bound here. Whatever else is in the folder is left alone, and nothing in it is
   * trusted to be what was saved.
   * @returns whether it can
   */
  adopt(conversation: string, folder: string): Promise<boolean>
  /** Forgets a conversation. */
  close(conversation: string): Promise<void>
  stop(): Promise<void>
  /** Of a harness that people type into: it has this and no turns. */
  terminal?: Terminal
}

/** Default export of a harness folder's `manifest.ts`. */
export type HarnessManifest = {
  /** Name of its folder. */
  id: string
  name: string
  /** Whether it is a terminal. */
  supportsTui: boolean
} & HarnessDriver

/** A driver of its own; or how it is started, for whatever speaks ACP (https://agentclientprotocol.com), and for programs of a terminal. */
type HarnessDriver =
  | { create(context: HarnessContext): Harness }
  | { acp(context: HarnessContext): AcpAgent }
  | { terminal(context: HarnessContext, settings: SessionSettings): TerminalProgram }

export class HarnessGone extends Error {
  override name = 'HarnessGone'
}
