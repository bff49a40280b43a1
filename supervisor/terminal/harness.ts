import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { ALLOW_ALL } from '../../domain/permission.ts'
import { TERMINAL_CONVERSATION } from '../../domain/supervisor-protocol.ts'
import type { MessagePart } from '../../domain/turn.ts'
import { type Harness, type HarnessContext, HarnessGone, type SessionSettings } from '../harness.ts'
import { refused } from '../refused.ts'
import { type StartSpec, type Terminal, type TerminalProgram, createTerminal } from './terminal.ts'

/** What a program starts with that nobody has told anything: the settings of most sessions, so that it need not be started again for them. */
const NOTHING: SessionSettings = { system: null, mcp: [], permissions: ALLOW_ALL }

const LOST = 'The sandbox of this session was lost, with what was said and what was not pushed. This is a new one.'

/** A throwaway turn only saves time, so it takes no longer than this. */
const drawn = { quietMs: 400, limitMs: 15_000 }
const typed = { quietMs: 300, limitMs: 3_000 }
const enterEveryMs = 4_000
const entersMax = 5
const answered = { quietMs: 300, limitMs: 2_000 }
const pollMs = 50

const writeHome = ({ files = {} }: TerminalProgram, home: string): void => {
  for (const [name, content] of Object.entries(files)) {
    const file = path.join(home, name)
    mkdirSync(path.dirname(file), { recursive: true })
    writeFileSync(file, content, { mode: 0o600 })
  }
}

export type TerminalHarness = Harness & { terminal: Terminal }

type Deps = {
  program: (context: HarnessContext, settings: SessionSettings) => TerminalProgram
  name: string
  context: HarnessContext
}

/**
 * A program that people type into, in the place of one that is told turns. It is started before there is a session; one whose settings it can only be told at
 * its start is started again at bind.
 */
export const createTerminalHarness = ({ program, name, context }: Deps): TerminalHarness => {
  let isBound = false
  const terminal = createTerminal({
    name,
    log: context.log,
    onExit({ code, signal }) {
      // In a session, people see it on the screen and start it again.
      if (!isBound) context.onExit({ code, signal: signal === null ? null : String(signal), tail: [] })
    },
  })
  const bare = (): TerminalProgram => program(context, NOTHING)

  const prepared = (wanted: TerminalProgram): StartSpec => {
    writeHome(wanted, context.home)
    const env = { ...context.env, HOME: context.home, COLORTERM: 'truecolor', ...wanted.env }
    return { command: wanted.command, cwd: context.workspace, env }
  }
  /** One that was not ready for the first Enter, or took it for a part of what was pasted, gets another. */
  const enter = async (): Promise<void> => {
    for (let presses = 0; presses < entersMax && !context.isWarmedUp(); presses++) {
      terminal.type(Buffer.from('\r'))
      for (let waited = 0; waited < enterEveryMs && !context.isWarmedUp(); waited += pollMs) await sleep(pollMs)
    }
  }

  return {
    terminal,
    start: () => Promise.resolve(),
    pid: () => terminal.pid(),
    async open() {
      await terminal.start(prepared(bare()))
      const exit = await terminal.firstOutput()
      if (exit !== null) throw new HarnessGone(`${name} ended at its start: code ${exit.code}, signal ${exit.signal}`)
      return TERMINAL_CONVERSATION
    },
    async bind(_conversation, settings) {
      isBound = true
      const wanted = program(context, settings)
      if (settings.moved === true) return terminal.wait(prepared(wanted), LOST)
      if (isDeepStrictEqual(wanted, bare()) && terminal.pid() !== null) return
      await terminal.start(prepared(wanted))
    },
    ready: () => Promise.resolve(),
    tell: () => Promise.resolve(),
    /** Only the throwaway turn comes this way: nobody can say for sure when a program has answered. */
    async prompt(_conversation, parts: MessagePart[]) {
      // A session that began with conversations, whose agent has another harness since.
      if (isBound) return { error: `${name} is a terminal and takes no messages` }
      if (bare().takesPrompts === false) return { error: null }
      await terminal.quiet(drawn)
      for (const { text } of parts) if (typeof text === 'string') terminal.type(Buffer.from(text))
      await terminal.quiet(typed)
      await enter()
      await terminal.quiet(answered)
      return { error: null }
    },
    cancel: () => Promise.resolve(),
    reply: () => Promise.resolve(),
    messages: () => Promise.resolve([]),
    save: () => Promise.reject(refused('no_conversation', `${name} is a terminal: what is said in it is not kept`)),
    adopt: () => Promise.resolve(false),
    close: () => Promise.resolve(),
    stop: () => terminal.stop('the sandbox ends'),
  }
}
