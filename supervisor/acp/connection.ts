import { Readable, Writable } from 'node:stream'
import * as acp from '@agentclientprotocol/sdk/unstable'
import { type HarnessExit, HarnessGone } from '../harness.ts'
import { type RunningProgram, startProgram } from '../program.ts'
import type { AcpAgent } from './agent.ts'

/** What an agent calls us for. */
export type Calls = {
  onUpdate: (params: acp.SessionNotification) => void
  onPermission: (params: acp.RequestPermissionRequest) => Promise<acp.RequestPermissionResponse>
}

export type Connection = {
  pid: number | null
  capabilities: acp.AgentCapabilities
  /** @throws acp.RequestError what the agent refuses; HarnessGone, after its end has been told */
  call<T>(work: (agent: acp.ClientContext) => Promise<T>): Promise<T>
}

/** Agents answer within a second or three; a machine that starts many at once takes longer. */
const initializeTimeoutMs = 120_000

/**
 * Failures of a turn as data instead of as words of the agent, and warnings as notices. The first is an extension of JetBrains that Claude's and Codex'
 * adapters know: without it a gateway that refuses ends a turn of Codex as if all were well. `terminal_output_delta`: what a command writes, which Codex'
 * tells in no other way.
 */
const CAPABILITIES: acp.ClientCapabilities = {
  fs: { readTextFile: false, writeTextFile: false },
  terminal: false,
  session: { notices: {} },
  _meta: { terminal_output_delta: true, jetbrains: { air: { version: 1, capabilities: ['sessionFailure'] } } },
}

const gone = async ({ exited, exitText, stop }: RunningProgram): Promise<HarnessGone> => {
  await stop()
  return new HarnessGone(exitText(await exited))
}

/** One that closes its pipes without ending is of no use any more. What its children still say after its end is not its answer. */
const guarded =
  (program: RunningProgram, { agent, signal }: acp.ClientConnection): Connection['call'] =>
  async (work) => {
    let ended = false
    void program.exited.then(() => (ended = true))
    try {
      return await work(agent)
    } catch (error) {
      throw signal.aborted || ended || !(error instanceof acp.RequestError) ? await gone(program) : error
    }
  }

export type Start = {
  agent: AcpAgent
  name: string
  cwd: string
  env: Record<string, string>
  calls: Calls
  onLine: (line: string) => void
  /** Registered before anybody can wait for the same end. */
  onExit: (exit: HarnessExit) => void
  /** Told how to end it, before it answers. */
  onProgram: (stop: () => Promise<void>) => void
}

/** Starts an agent and agrees on the protocol. @throws HarnessGone when it ends meanwhile or takes too long */
export const connect = async ({
  agent,
  name,
  cwd,
  env,
  calls,
  onLine,
  onExit,
  onProgram,
}: Start): Promise<Connection> => {
  const [file, ...args] = agent.command
  const program = startProgram({ name, file, args, cwd, env, onLine, stdio: 'pipe' })
  onProgram(program.stop)
  void program.exited.then(onExit)
  const stream = acp.ndJsonStream(
    Writable.toWeb(program.stdin!) as WritableStream<Uint8Array>,
    Readable.toWeb(program.stdout!) as ReadableStream<Uint8Array>,
  )
  const connection = acp
    .client({ name: 'lap' })
    .onNotification('session/update', ({ params }) => calls.onUpdate(params))
    .onRequest('session/request_permission', ({ params }) => calls.onPermission(params))
    .connect(stream)
  // It resolves in either way; who waits for an answer hears of it.
  connection.closed.catch(() => undefined)
  const call = guarded(program, connection)
  const late = setTimeout(program.kill, initializeTimeoutMs)
  const us: acp.InitializeRequest = {
    protocolVersion: acp.PROTOCOL_VERSION,
    clientCapabilities: CAPABILITIES,
    clientInfo: { name: 'lap', version: '1' },
  }
  const { agentCapabilities } = await call((agent) => agent.request('initialize', us)).finally(() => clearTimeout(late))
  return { pid: program.pid, capabilities: agentCapabilities ?? {}, call }
}
