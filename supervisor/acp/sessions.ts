import type * as acp from '@agentclientprotocol/sdk/unstable'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { McpServer } from '../../domain/mcp.ts'
import { allowsAll } from '../../domain/permission.ts'
import type { SessionSettings } from '../harness.ts'
import type { AcpAgent } from './agent.ts'
import type { Connection } from './connection.ts'

/** The agent's own sessions, with the settings of ours. */
export type Sessions = {
  /** @returns its id */
  open(settings: SessionSettings | null): Promise<string>
  /** Takes up one of an earlier process. The agent tells it again, as updates, before this resolves. */
  load(session: string, settings: SessionSettings | null): Promise<void>
  /** Whether it asks. */
  setMode(session: string, settings: SessionSettings | null): Promise<void>
  /** Ends it in this process; its files stay. Else an agent does not take the settings of a session that it has loaded already. */
  close(session: string): Promise<void>
  canClose(): boolean
  /** Whether a session that was opened without settings cannot get these any more. */
  needsOwn(settings: SessionSettings): boolean
  /** Whether the agent finds it in its files. */
  isListed(session: string): Promise<boolean>
  forget(session: string): Promise<void>
  /** Whether its system prompt goes before the first message, because the agent has no other place for it. */
  tellsPrompt(): boolean
}

const pairs = (record: Record<string, string> = {}): { name: string; value: string }[] =>
  Object.entries(record).map(([name, value]) => ({ name, value }))

const serverOf = (server: McpServer): acp.McpServer =>
  server.transport === 'http'
    ? { type: 'http', name: server.name, url: server.url, headers: pairs(server.headers) }
    : { name: server.name, command: server.command, args: server.args ?? [], env: pairs(server.env) }

const asks = (settings: SessionSettings | null): boolean => settings !== null && !allowsAll(settings.permissions)

const writeFiles = (home: string, files: Record<string, string>): void => {
  for (const [name, text] of Object.entries(files)) {
    const file = path.join(home, name)
    mkdirSync(path.dirname(file), { recursive: true })
    writeFileSync(file, text, { mode: 0o600 })
  }
}

type Place = { agent: AcpAgent; home: string; workspace: string; connection: () => Connection }

/** What is asked of the agent about a session that is open. */
const createRequests = ({ agent, connection }: Pick<Place, 'agent' | 'connection'>) => {
  const setMode = async (sessionId: string, settings: SessionSettings | null): Promise<void> => {
    if (agent.modes === undefined) return
    const modeId = asks(settings) ? agent.modes.asking : agent.modes.unattended
    await connection().call((agent) => agent.request('session/set_mode', { sessionId, modeId }))
  }
  const setTitle = async (sessionId: string): Promise<void> => {
    const { title } = agent
    if (title !== undefined)
      await connection().call((agent) => agent.request('session/set_title', { sessionId, title }))
  }
  const can = (what: 'close' | 'delete' | 'list'): boolean =>
    connection().capabilities.sessionCapabilities?.[what] != null
  const close = async (sessionId: string): Promise<void> => {
    if (can('close')) await connection().call((agent) => agent.request('session/close', { sessionId }))
  }
  const forget = async (sessionId: string): Promise<void> => {
    if (can('delete')) await connection().call((agent) => agent.request('session/delete', { sessionId }))
    else await close(sessionId)
  }
  return { setMode, setTitle, can, close, forget }
}

export const createSessions = ({ agent, home, workspace, connection }: Place): Sessions => {
  const takesPrompt = (): boolean => connection().capabilities.sessionCapabilities?.systemPrompt != null

  const writeInstructions = (settings: SessionSettings | null): void => {
    if (agent.instructionsFile !== undefined && !takesPrompt())
      writeFiles(home, { [agent.instructionsFile]: settings?.system ?? '' })
    if (settings !== null && asks(settings)) writeFiles(home, agent.ruled?.files(settings.permissions) ?? {})
  }
  const params = (settings: SessionSettings | null): acp.NewSessionRequest => {
    const ruled = asks(settings) ? agent.ruled : undefined
    const meta = ruled?.sessionMeta ?? agent.sessionMeta
    return {
      cwd: ruled?.cwd ?? workspace,
      mcpServers: (settings?.mcp ?? []).map(serverOf),
      ...(settings?.system != null && takesPrompt()
        ? { systemPrompt: { mode: 'append' as const, content: [{ type: 'text' as const, text: settings.system }] } }
        : {}),
      ...(meta === undefined ? {} : { _meta: meta }),
    }
  }
  const { setMode, setTitle, can, close, forget } = createRequests({ agent, connection })
  return {
    close,
    canClose: () => can('close'),
    needsOwn: (settings) =>
      settings.system !== null || settings.mcp.length > 0 || (agent.ruled !== undefined && asks(settings)),
    async isListed(session) {
      if (!can('list')) return false
      // What was put there a moment ago is on the first page.
      const { sessions } = await connection().call((agent) => agent.request('session/list', { cwd: workspace }))
      return sessions.some(({ sessionId }) => sessionId === session)
    },
    async open(settings) {
      writeInstructions(settings)
      const { sessionId } = await connection().call((agent) => agent.request('session/new', params(settings)))
      try {
        await setMode(sessionId, settings)
        await setTitle(sessionId)
      } catch (error) {
        // Who tries again opens another one.
        await forget(sessionId).catch(() => undefined)
        throw error
      }
      return sessionId
    },
    async load(sessionId, settings) {
      writeInstructions(settings)
      await connection().call((agent) => agent.request('session/load', { sessionId, ...params(settings) }))
      await setMode(sessionId, settings)
      // It is not in the files that have come from another sandbox.
      await setTitle(sessionId)
    },
    setMode,
    forget,
    tellsPrompt: () => !takesPrompt() && agent.instructionsFile === undefined,
  }
}
