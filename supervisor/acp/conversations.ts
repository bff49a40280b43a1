import { randomUUID } from 'node:crypto'
import { allowsAll } from '../../domain/permission.ts'
import type { TurnReply } from '../../domain/turn.ts'
import { type HarnessContext, HarnessGone, type SessionSettings } from '../harness.ts'
import { repeatable } from '../repeatable.ts'
import type { AcpAgent } from './agent.ts'
import type { Connection } from './connection.ts'
import { createSessionFiles } from './session-files.ts'
import { type Sessions, createSessions } from './sessions.ts'
import { type Thread, createThread } from './thread.ts'
import { refusalText } from './turn.ts'

export type Conversation = {
  id: string
  /** The agent's session, once there is one. */
  session: string | null
  settings: SessionSettings | null
  /** The agent has it in its files. */
  used: boolean
  /** It is one of another sandbox or process, which the agent has yet to load. */
  isToLoad: boolean
  thread: Thread
  /** Told to the agent with the next message, and to nobody else; once more with the one after it, when the agent has not taken that. */
  preamble: string[]
  /** Resolves when the session is open; tries once more after it could not be opened. */
  ready: () => Promise<void>
  /** `answered`: the agent has begun to. */
  turn: { cancelled: boolean; denied: boolean; answered: boolean } | null
  /** The agent is telling what it has of it. */
  loading: boolean
}

/** The conversations, and which of the agent's sessions they are. */
export type Conversations = {
  get(id: string): Conversation
  ofSession(session: string): Conversation | undefined
  open(): Promise<string>
  bind(id: string, settings: SessionSettings): void
  save(id: string, folder: string): Promise<void>
  /** @returns whether the agent could load it */
  adopt(id: string, folder: string): Promise<boolean>
  /** After a restart: what the agent has in its files goes on, what it has not begins anew. */
  restore(): Promise<void>
  close(id: string): Promise<void>
}

const retold = (messages: TurnReply[]): string =>
  [
    'The conversation so far. The program that had it ended before it could keep it.',
    ...messages.map(({ info, parts }) => {
      const said = parts.flatMap(({ text }) => (typeof text === 'string' ? [text] : [])).join('\n')
      return `<${String(info['role'])}>\n${said}\n</${String(info['role'])}>`
    }),
  ].join('\n\n')

export type ConversationsDeps = { agent: AcpAgent; context: HarnessContext; connection: () => Connection }

/** A conversation's session, opened or taken up. */
const createOpening = ({ context }: ConversationsDeps, sessions: Sessions) => {
  const open = async (own: Conversation): Promise<void> => {
    own.session = await sessions.open(own.settings)
    const system = own.settings?.system ?? null
    if (system === null || !sessions.tellsPrompt()) return
    // The session before it may not have been told.
    own.preamble = [system, ...own.preamble.filter((text) => text !== system)]
  }
  const load = async (own: Conversation, session: string): Promise<void> => {
    own.loading = true
    own.session = session
    own.thread.beginReplay()
    try {
      await sessions.load(session, own.settings)
      own.isToLoad = false
    } finally {
      own.loading = false
    }
  }
  const loadOrOpen = async (own: Conversation, session: string): Promise<void> => {
    const known = own.thread.messages()
    try {
      await load(own, session)
    } catch (error) {
      if (error instanceof HarnessGone) throw error
      context.log(`the session ${session} cannot be loaded, another one is opened: ${refusalText(error)}`)
      if (known.length > 0) own.preamble.unshift(retold(known))
      // Of no use any more, also if another one cannot be opened now.
      Object.assign(own, { session: null, used: false, isToLoad: false })
      await open(own)
    }
  }
  return {
    open,
    load,
    /** Goes on with what the agent has in its files; what it has not begins anew. */
    async takeUp(own: Conversation): Promise<void> {
      const { session, used } = own
      if (!used || session === null) return open(own)
      if (!own.isToLoad) await sessions.close(session)
      own.isToLoad = true
      await loadOrOpen(own, session)
    },
    /** The next turn waits for it. */
    async begin(own: Conversation, work: () => Promise<void>): Promise<void> {
      own.ready = repeatable(work)
      await own.ready().catch((error: unknown) => context.log(`session of ${own.id}: ${refusalText(error)}`))
    },
  }
}

type Known = {
  all: Map<string, Conversation>
  make: (id: string) => Conversation
  get: (id: string) => Conversation
  load: (own: Conversation, session: string) => Promise<void>
  sessions: Sessions
}

/** Conversations that go to another sandbox, and come from one. */
const createTravel = ({ agent, context, connection }: ConversationsDeps, { all, make, get, load, sessions }: Known) => {
  const files = createSessionFiles(agent, context.home, context.workspace)
  return {
    async save(id: string, folder: string): Promise<void> {
      const own = get(id)
      // What could not be opened is the next turn's business; the files are there all the same.
      await own.ready().catch(() => undefined)
      if (own.used && own.session !== null) await files.save(own.session, folder)
    },
    async adopt(id: string, folder: string): Promise<boolean> {
      const session = await files.restore(folder)
      if (session === null || connection().capabilities.loadSession !== true) return false
      const own = Object.assign(make(id), { session, used: true, isToLoad: !sessions.canClose() })
      try {
        // It could not load it once more, with the settings.
        if (own.isToLoad) return await sessions.isListed(session)
        await load(own, session)
        return true
      } catch (error) {
        all.delete(id)
        throw new Error(refusalText(error), { cause: error })
      }
    },
  }
}

export const createConversations = (deps: ConversationsDeps): Conversations => {
  const { agent, context, connection } = deps
  const all = new Map<string, Conversation>()
  const sessions = createSessions({ agent, home: context.home, workspace: context.workspace, connection })
  const { open, load, takeUp, begin } = createOpening(deps, sessions)

  const make = (id: string): Conversation => {
    const thread = createThread({ sessionID: id, model: context.gateway.model, onEvent: context.onEvent })
    const state = {
      session: null,
      settings: null,
      used: false,
      isToLoad: false,
      preamble: [],
      turn: null,
      loading: false,
    }
    const made: Conversation = { id, thread, ready: () => Promise.resolve(), ...state }
    all.set(id, made)
    return made
  }
  const get = (id: string): Conversation => {
    const found = all.get(id)
    if (found === undefined) throw new Error(`no conversation ${id}`)
    return found
  }
  const travel = createTravel(deps, { all, make, get, load, sessions })
  return {
    get,
    ofSession: (session) => [...all.values()].find((each) => each.session === session),
    async open() {
      const own = make(`ses_${randomUUID().replaceAll('-', '')}`)
      await open(own)
      return own.id
    },
    bind(id, settings) {
      const own = all.get(id) ?? make(id)
      own.settings = settings
      // Adopted; if the agent has loaded it, then without the settings.
      if (own.used && own.session !== null && (own.isToLoad || sessions.needsOwn(settings)))
        return void begin(own, async () => takeUp(own))
      const spare = own.session
      if (spare !== null && !sessions.needsOwn(settings)) {
        if (allowsAll(settings.permissions)) return undefined
        return void begin(own, async () => sessions.setMode(spare, settings))
      }
      return void begin(own, async () => {
        await open(own)
        // It is of no use any more; that nobody could be told so is no harm.
        if (spare !== null) sessions.forget(spare).catch(() => undefined)
      })
    },
    save: travel.save,
    adopt: travel.adopt,
    async restore() {
      for (const own of all.values()) {
        own.isToLoad = own.used
        await begin(own, () => takeUp(own))
      }
    },
    async close(id) {
      const { session } = get(id)
      all.delete(id)
      if (session !== null) await sessions.forget(session)
    },
  }
}
