import type { MessagePart, TurnReply } from '../domain/turn.ts'

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
  /** Every event of its bus, of all its conversations. */
  onEvent(event: HarnessEvent): void
  /** Its process ended by itself. */
  onExit(exit: HarnessExit): void
  log(line: string): void
}

/** Instruction of one turn. */
export type Prompt = { parts: MessagePart[]; system: string | null }

/**
 * A coding harness inside a sandbox. Conversations are named by ids of its own and survive a restart.
 * Every call rejects with `HarnessGone` when the process ends meanwhile.
 */
export type Harness = {
  /** Starts it; resolves when a conversation can be opened. Also called after it has exited. */
  start(): Promise<void>
  /** Process id, or null while none runs. For one without a process: null, always. */
  pid(): number | null
  open(): Promise<string>
  /** Adds to the conversation without having it answered. */
  tell(conversation: string, text: string): Promise<void>
  /** Runs one turn to its end. All its events have been given to `onEvent` when it resolves. */
  prompt(conversation: string, prompt: Prompt): Promise<{ error: string | null }>
  /** The running turn ends soon after. */
  cancel(conversation: string): Promise<void>
  /** The whole thread, oldest first. */
  messages(conversation: string): Promise<TurnReply[]>
  /** Forgets a conversation. */
  close(conversation: string): Promise<void>
  stop(): Promise<void>
}

/** Default export of a harness folder's `manifest.ts`. */
export type HarnessManifest = {
  /** Name of its folder. */
  id: string
  name: string
  /** Whether it can also be used as a terminal. */
  supportsTui: boolean
  create(context: HarnessContext): Harness
}

export class HarnessGone extends Error {
  override name = 'HarnessGone'
}
