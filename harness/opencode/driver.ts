import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { errorText } from '../../domain/errors.ts'
import type { McpServer } from '../../domain/mcp.ts'
import type { MessagePart, TurnReply } from '../../domain/turn.ts'
import {
  type Harness,
  type HarnessContext,
  type HarnessEvent,
  type HarnessExit,
  HarnessGone,
  type SessionSettings,
} from '../../supervisor/harness.ts'
import { repeatable } from '../../supervisor/repeatable.ts'
import { type Client, OpencodeRefused, createClient } from './client.ts'
import { askedBy, replyOf, rulesetOf } from './permissions.ts'
import { type ServerProcess, spawnServer } from './process.ts'
import { PROVIDER } from './settings.ts'
import { projectOf, restoreConversation, saveConversation } from './store.ts'
import { type TurnWatch, createTurnWatch, failureText } from './turn-watch.ts'

/** A request that arrives while opencode boots may hang for minutes, so it is asked again. */
const probeTimeoutMs = 300
const probePauseMs = 20
const reconnectMs = 100

type Running = { process: ServerProcess; client: Client; closed: AbortController }

/** A tool that opencode's death cut off would stay `running` for ever. */
const cutOff = (part: MessagePart): MessagePart | null => {
  const state = part['state'] as { status?: string; input?: unknown; time?: { start?: number } } | undefined
  if (part.type !== 'tool' || (state?.status !== 'running' && state?.status !== 'pending')) return null
  const now = Date.now()
  const time = { start: state.time?.start ?? now, end: now }
  const error = 'The harness ended while this ran.'
  return { ...part, state: { status: 'error', input: state.input ?? {}, error, time } }
}

const closeCutOffTools = async (client: Client, conversation: string): Promise<void> => {
  const thread = await client.call<TurnReply[]>({ method: 'GET', path: `/session/${conversation}/message` })
  for (const { info, parts } of thread)
    for (const body of parts.map(cutOff).filter((part) => part !== null)) {
      const path = `/session/${conversation}/message/${String(info['id'])}/part/${String(body['id'])}`
      await client.call({ method: 'PATCH', path, body })
    }
}

/** Resolves when it answers. @throws HarnessGone when it ends before */
const untilAnswers = async ({ client, process }: Running): Promise<void> => {
  for (let ended = false; !ended;) {
    const health = client.call({ method: 'GET', path: '/global/health', timeoutMs: probeTimeoutMs })
    const healthy = await health.then(
      () => true,
      () => false,
    )
    if (healthy) return
    ended = await Promise.race([process.exited.then(() => true), sleep(probePauseMs, false)])
  }
  throw new HarnessGone(process.exitText(await process.exited))
}

/** Hears the bus for as long as the process lives; resolves when it does for the first time. */
const listen = (
  { client, closed: { signal } }: Running,
  onEvent: (event: HarnessEvent) => void,
  log: (line: string) => void,
): Promise<void> =>
  new Promise((onOpen) => {
    const repeat = async (): Promise<void> => {
      while (!signal.aborted) {
        await client.events(onEvent, { onOpen, signal }).catch((error: unknown) => {
          if (!signal.aborted) log(`the events of opencode broke off: ${errorText(error)}`)
        })
        await sleep(reconnectMs)
      }
    }
    void repeat()
  })

/** The running server, and what to do with its events. */
type Api = {
  running(): Running
  /** The watches of the turns that run. */
  watches: Set<TurnWatch>
  /** By conversation; `ready`: opencode has taken them. */
  bound: Map<string, { settings: SessionSettings; ready: () => Promise<void> }>
  modelID: string
  home: string
  /** Conversations that may hold a tool call that an end of the process has cut off. */
  used: Set<string>
  log(line: string): void
}

/** A server that drops a connection without ending is of no use any more: its turns cannot be told apart from lost ones. */
const endOf = async ({ process }: Running): Promise<HarnessGone> => {
  await process.stop()
  return new HarnessGone(process.exitText(await process.exited))
}

const abort = (client: Client, conversation: string): Promise<void> =>
  client.call({ method: 'POST', path: `/session/${conversation}/abort` })

type Answer = { info?: { id?: string; error?: Parameters<typeof failureText>[0] } } | null

/** One request is one turn: it is answered when the turn has ended, however long that takes. */
const runTurn = async (api: Api, conversation: string, body: object): Promise<{ error: string | null }> => {
  const { log, watches } = api
  const own = api.running()
  const giveUp = (): void =>
    void abort(own.client, conversation).catch((error: unknown) => log(`abort: ${errorText(error)}`))
  const watch = createTurnWatch(conversation, giveUp)
  watches.add(watch)
  try {
    const path = `/session/${conversation}/message`
    const answer = await own.client.call<Answer>({ method: 'POST', path, body, timeoutMs: null })
    const { id, error } = answer?.info ?? {}
    if (id === undefined) return { error: watch.error() ?? 'opencode ended the turn without an answer' }
    if (!(await watch.told(id))) log('the events of opencode do not tell the end of the turn')
    return { error: watch.error() ?? (error === undefined ? null : failureText(error)) }
  } catch (error) {
    if (error instanceof OpencodeRefused) return { error: error.message }
    throw error instanceof HarnessGone ? await endOf(own) : error
  } finally {
    watches.delete(watch)
  }
}

const mcpConfig = (server: McpServer): object =>
  server.transport === 'http'
    ? { type: 'remote', url: server.url, headers: server.headers ?? {}, enabled: true, oauth: false }
    : { type: 'local', command: [server.command, ...(server.args ?? [])], environment: server.env ?? {}, enabled: true }

/** A server that does not answer is no reason for a session not to work. */
const addServers = async ({ running, log }: Api, servers: McpServer[]): Promise<void> => {
  for (const server of servers) {
    const body = { name: server.name, config: mcpConfig(server) }
    await running()
      .client.call<Record<string, { status?: string; error?: string }>>({ method: 'POST', path: '/mcp', body })
      .then((status) => {
        const { status: state, error } = status[server.name] ?? {}
        if (state !== 'connected') log(`MCP server ${server.name}: ${state} ${error ?? ''}`)
      })
      .catch((error: unknown) => log(`MCP server ${server.name}: ${errorText(error)}`))
  }
}

const applySettings = async (api: Api, conversation: string, { mcp, permissions }: SessionSettings): Promise<void> => {
  const permission = rulesetOf(permissions)
  if (permission.length > 0)
    await api.running().client.call({ method: 'PATCH', path: `/session/${conversation}`, body: { permission } })
  await addServers(api, mcp)
}

/** Does not wait: the first turn does. */
const bindTo = (api: Api, conversation: string, settings: SessionSettings): void => {
  const ready = repeatable(() => applySettings(api, conversation, settings))
  api.bound.set(conversation, { settings, ready })
  ready().catch((error: unknown) => api.log(`settings of ${conversation}: ${errorText(error)}`))
}

const conversations = (api: Api): Omit<Harness, 'start' | 'pid' | 'stop'> => {
  const model = { providerID: PROVIDER, modelID: api.modelID }
  const client = (): Client => api.running().client
  const calls: ReturnType<typeof conversations> = {
    async open() {
      // With a title of ours it does not ask the model for one.
      const body = { title: 'Session' }
      const { id } = await client().call<{ id: string }>({ method: 'POST', path: '/session', body })
      api.used.add(id)
      return id
    },
    async bind(conversation, settings) {
      bindTo(api, conversation, settings)
    },
    ready: async (conversation) => api.bound.get(conversation)?.ready(),
    async reply(id, decision) {
      const body = replyOf(decision)
      await client()
        .call({ method: 'POST', path: `/permission/${id}/reply`, body })
        .catch((error: unknown) => {
          // The question is over: its turn was aborted.
          if (!(error instanceof OpencodeRefused)) throw error
        })
    },
    async tell(conversation, text) {
      const body = { model, noReply: true, parts: [{ type: 'text', text }] }
      await client().call({ method: 'POST', path: `/session/${conversation}/message`, body })
    },
    async prompt(conversation, parts) {
      const system = api.bound.get(conversation)?.settings.system ?? null
      return runTurn(api, conversation, { model, parts, ...(system === null ? {} : { system }) })
    },
    cancel: async (conversation) => abort(client(), conversation),
    save: (conversation, folder) => saveConversation(api.home, conversation, folder),
    async adopt(conversation, folder) {
      const spare = await calls.open()
      const project = projectOf(api.home, spare)
      await calls.close(spare)
      if (!(await restoreConversation(api.home, folder, project))) return false
      await closeCutOffTools(client(), conversation)
      api.used.add(conversation)
      return true
    },
    messages: async (conversation) => client().call({ method: 'GET', path: `/session/${conversation}/message` }),
    async close(conversation) {
      await client().call({ method: 'DELETE', path: `/session/${conversation}` })
      api.used.delete(conversation)
      api.bound.delete(conversation)
    },
  }
  return calls
}

/** opencode over its HTTP API: https://opencode.ai/docs/server */
export const createOpencode = (context: HarnessContext): Harness => {
  const password = randomBytes(24).toString('base64url')
  const log = (line: string): void => context.log(line)
  const watches = new Set<TurnWatch>()
  let running: Running | null = null
  /** The latest process, also while it starts. */
  let latest: ServerProcess | null = null
  let stopping = false

  const current = (): Running => {
    if (running === null) throw new HarnessGone('opencode does not run')
    return running
  }

  const api: Api = {
    running: current,
    watches,
    bound: new Map(),
    modelID: context.gateway.model,
    home: context.home,
    used: new Set(),
    log,
  }

  const onEvent = (own: Running, event: HarnessEvent): void => {
    /** It is settled by the settings; a plug-in of the repository may ask all the same, and nobody would answer. */
    const answer = (path: string, body: object): void =>
      void own.client.call({ method: 'POST', path, body }).catch((error: unknown) => log(errorText(error)))
    const request = String(event.properties['id'])
    const asked = askedBy(event)
    if (asked !== null) context.onPermission(asked.conversation, asked.request)
    // They are told by the supervisor, for every harness in the same form.
    if (event.type.startsWith('permission.')) return
    if (event.type === 'question.asked') answer(`/question/${request}/reject`, {})
    context.onEvent(event)
    for (const watch of watches) watch.hear(event)
  }

  const onEnd = (own: Running, exit: HarnessExit): void => {
    own.closed.abort()
    own.client.close()
    if (running !== own) return
    running = null
    if (!stopping) context.onExit(exit)
  }

  const start = async (): Promise<void> => {
    stopping = false
    const process = (latest = spawnServer(context, password))
    const url = await process.listening()
    const http = createClient({ url, password, directory: context.workspace })
    const own: Running = { process, client: http, closed: new AbortController() }
    // Registered before any turn waits for the same, so the journal tells the cause before its consequence.
    void process.exited.then((exit) => onEnd(own, exit))
    await untilAnswers(own)
    await listen(own, (event) => onEvent(own, event), log)
    for (const conversation of api.used) await closeCutOffTools(own.client, conversation)
    running = own
    for (const [conversation, { settings }] of api.bound) bindTo(api, conversation, settings)
  }

  return {
    ...conversations(api),
    start,
    pid: () => running?.process.pid ?? null,
    async stop() {
      stopping = true
      await latest?.stop()
    },
  }
}
